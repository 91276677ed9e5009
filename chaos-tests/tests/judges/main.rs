//! The judges of histories: what is right passes, what is wrong is convicted; and the crash that the
//! simulation makes.

mod cases;
mod crash;
mod search;
