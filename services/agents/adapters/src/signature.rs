//! Signatures of the Standard Webhooks specification, version 1.0.0, symmetric scheme: `v1,` and the base64 of
//! HMAC-SHA256 over `<id>.<timestamp>.<body>`.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;

/// What a secret begins with when people see it.
const PREFIX: &str = "whsec_";
/// Bytes of a secret: what the specification asks for.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret that the receiver knows, too.
#[derive(Clone)]
pub(crate) struct Secret(hmac::Key);

impl Secret {
    /// Reads `whsec_` and base64; without the prefix as well.
    ///
    /// # Errors
    /// In words, without the secret.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let bytes = STANDARD
            .decode(text.strip_prefix(PREFIX).unwrap_or(text))
            .map_err(|_| format!("it is not {PREFIX} and base64"))?;
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(format!(
                "it has {} bytes, and must have {} to {}",
                bytes.len(),
                SECRET_BYTES.start(),
                SECRET_BYTES.end()
            ));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The header `webhook-signature`.
    pub(crate) fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let mut signing = hmac::Context::with_key(&self.0);
        signing.update(format!("{id}.{seconds}.").as_bytes());
        signing.update(body);
        format!("v1,{}", STANDARD.encode(signing.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_signs_as_the_reference_implementations_do() {
        let secret = Secret::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn secrets_are_of_the_length_that_is_asked_for() {
        let of = |bytes: usize| {
            Secret::read(&format!("whsec_{}", STANDARD.encode(vec![7; bytes]))).map(|_| ())
        };
        for (bytes, good) in [(0, false), (23, false), (24, true), (64, true), (65, false)] {
            assert_eq!(of(bytes).is_ok(), good, "{bytes}");
        }
        let error = Secret::read("whsec_no!")
            .map(|_| ())
            .expect_err("no base64");
        assert!(!error.contains("no!"), "{error}");
    }
}
