//! Golden pairs and rules of translate.
