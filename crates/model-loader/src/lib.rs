//! model-loader
