//! Measurements: criterion micro benches under `benches/`.
