//! Streams between a client and a container: the client's side is a WebSocket or SPDY, the runtime's
//! side is SPDY/3.1 to its streaming server, because only that can close one direction of a stream.

pub mod forward;
pub mod remote_command;
pub mod spdy;
pub mod upgrade;
