// SPDX-License-Identifier: MPL-2.0
//! Several machines as one wall, on JetStream.
