//! The whole system, proven from outside: real processes, stock clients, scripted faults.

mod bad_clients;
mod database_faults;
mod doctor;
mod fault_table;
mod faults;
mod fleet;
mod front;
mod ha;
mod health;
mod joining;
mod kinds;
mod locks;
mod logins;
mod main_job;
mod minting;
mod mysql;
mod mysql_drivers;
mod mysql_stopping;
mod offline;
mod plan;
mod recovery;
mod requests;
mod rotation;
mod scale;
mod sources;
mod trust;
