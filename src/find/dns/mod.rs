//! Answers by DNS.
mod limit;
mod metrics;
mod socket;
