//! pythia-redis
