//! pythia-metrics
