// SPDX-License-Identifier: MPL-2.0
//! Signatures of bodies, as <https://www.standardwebhooks.com> has them, for which every language has a
//! library that checks them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// A key that bodies are signed with.
pub(super) struct Key(hmac::Key);

impl Key {
    /// From the configuration's `secret`: `whsec_` and base64, or any text.
    pub fn new(secret: &str) -> Self {
        let decoded = secret.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
        let bytes = decoded.as_deref().unwrap_or(secret.as_bytes());
        Key(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The header `webhook-signature` of a message that is sent `at` (seconds since 1970).
    pub fn sign(&self, id: &str, at: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{at}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn a_signature_is_the_standards() {
        let key = Key::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let body = br#"{"test": 2432232314}"#;
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn any_text_is_a_secret() {
        let signature = Key::new("hall").sign("1", 1, b"{}");
        assert_eq!(signature, Key::new("hall").sign("1", 1, b"{}"));
        assert_ne!(signature, Key::new("wall").sign("1", 1, b"{}"));
        assert_ne!(signature, Key::new("hall").sign("2", 1, b"{}"));
    }
}
