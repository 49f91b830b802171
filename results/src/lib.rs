//! Measurement records, statistics, tables and plots of Longhaul runs.
