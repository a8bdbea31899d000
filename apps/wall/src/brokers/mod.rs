// SPDX-License-Identifier: MPL-2.0
//! Other systems that are told what happens: MQTT, webhooks, NATS, Prometheus.
