//! pythia-core
