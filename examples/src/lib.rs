//! Programs that show Pythia at work.
