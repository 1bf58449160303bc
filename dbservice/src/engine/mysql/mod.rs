//! MySQL and MariaDB.
//!
//! Here the server speaks first. A client that comes through the proxy's port for MySQL was greeted by the proxy, since
//! only the client's TLS, which follows, says which database it wants; so the agent begins with the client's answer. A
//! client inside a tunnel of `tg` says by ALPN that it speaks MySQL, has sent nothing, and is greeted here, in the
//! database's own words.
//!
//! Who a client is, its certificate says: whatever it sends as a password is not looked at.
//!
//! Not here: what sessions of all protocols share ([`super`]).

mod answers;
mod entry;
mod greeted;
mod login;
pub(crate) mod packets;
mod session;
#[cfg(test)]
mod session_tests;
mod stopping;
#[cfg(test)]
mod stopping_tests;
mod view;
mod words;

pub(crate) use greeted::{Greeted, greeted, secured};
pub(crate) use login::{LoginFailure, log_in};
pub(crate) use packets::next as next_packet;
pub(crate) use session::serve;
pub(crate) use stopping::Numbers;
