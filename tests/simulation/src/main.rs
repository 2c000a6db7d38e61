//! The pipeline on one seed.
fn main() {}
