// SPDX-License-Identifier: MPL-2.0
//! The wall beside other systems: real servers on loopback, killed and started again.

mod cluster;
mod last_words;
mod metrics;
mod mqtt;
mod nats;
mod servers;
mod stand_in;
mod unfit;
mod walls;
mod webhooks;
