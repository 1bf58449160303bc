//! The whole system, proven from outside: real processes, stock clients, scripted faults.

mod bad_clients;
mod faults;
mod main_job;
mod recovery;
