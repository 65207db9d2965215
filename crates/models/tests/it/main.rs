//! Every model of the registry against goldens and against itself.

mod contract;
mod goldens;
mod refusals;
mod runner;
mod tiny;
