//! Named situations, each with its exact outcome.
