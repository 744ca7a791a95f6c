//! Passwords for PostgreSQL: SCRAM-SHA-256 (RFC 5802, 7677) without channel binding, and the older md5.
//!
//! The salted key is what makes SCRAM slow, and a server keeps its salt: so the key is kept as long as salt, count and
//! password are the same. A password goes in as its bytes, without SASLprep, which changes no ASCII.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};
use ring::{digest, hmac, pbkdf2};

use super::message::{self, Message, Refusal};
use super::{next, unexpected};
use crate::wire::{Connection, WireError};

/// More rounds than any server in its right mind asks for; a hostile one could ask for hours.
const MOST_ROUNDS: u32 = 1_000_000;

/// What comes of a password, a salt and thousands of hashes.
#[derive(Clone)]
pub struct SaltedKey {
    password: Arc<str>,
    salt: Vec<u8>,
    rounds: u32,
    client: [u8; 32],
    server: [u8; 32],
}

impl fmt::Debug for SaltedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaltedKey(…)")
    }
}

/// The server's first word of the exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFirst {
    /// Our nonce, prolonged.
    pub nonce: String,
    /// The user's salt.
    pub salt: Vec<u8>,
    /// How often to hash.
    pub rounds: u32,
}

/// Proves that we know `password`. `None` is being let in.
pub(super) async fn authenticate(
    connection: &mut Connection,
    password: &Arc<str>,
    key: &mut Option<SaltedKey>,
) -> Result<Option<Refusal>, WireError> {
    let nonce = BASE64.encode(rand::random::<[u8; 18]>());
    let client_first = format!("n=,r={nonce}");
    connection.send_secret(&message::sasl_initial(&format!("n,,{client_first}"))).await?;
    let server_first = match next(connection).await? {
        Message::Sasl(data) => data,
        Message::Error(refusal) => return Ok(Some(refusal)),
        _ => return Err(unexpected("the server's part of SCRAM")),
    };
    let first = parse_server_first(&server_first).map_err(unexpected)?;
    if !first.nonce.starts_with(&nonce) || first.nonce.len() == nonce.len() {
        return Err(unexpected("our nonce, prolonged"));
    }
    let salted = salted_key(password, &first, key).await?;
    let client_final = format!("c=biws,r={}", first.nonce);
    let signed = format!("{client_first},{},{client_final}", String::from_utf8_lossy(&server_first));
    let proof = BASE64.encode(salted.proof(&signed));
    connection.send_secret(&message::sasl(&format!("{client_final},p={proof}"))).await?;
    match next(connection).await? {
        Message::SaslEnd(data) if salted.is_signed(&data, &signed) => {}
        Message::Error(refusal) => return Ok(Some(refusal)),
        _ => return Err(unexpected("the server's signature")),
    }
    match next(connection).await? {
        Message::LetIn => Ok(None),
        Message::Error(refusal) => Ok(Some(refusal)),
        _ => Err(unexpected("the end of the login")),
    }
}

/// The key kept, when it still fits, or a new one.
async fn salted_key<'k>(
    password: &Arc<str>,
    first: &ServerFirst,
    kept: &'k mut Option<SaltedKey>,
) -> Result<&'k SaltedKey, WireError> {
    let fits = |key: &SaltedKey| key.password == *password && key.salt == first.salt && key.rounds == first.rounds;
    if !kept.as_ref().is_some_and(fits) {
        let (password, first) = (Arc::clone(password), first.clone());
        // Milliseconds of hashing have no place among the other probes.
        let made = tokio::task::spawn_blocking(move || SaltedKey::new(password, &first)).await;
        *kept = Some(made.map_err(|_| WireError::Unaskable("the key could not be made"))?);
    }
    Ok(kept.as_ref().expect("made just now where it was missing"))
}

impl SaltedKey {
    fn new(password: Arc<str>, first: &ServerFirst) -> Self {
        let rounds = NonZeroU32::new(first.rounds).unwrap_or(NonZeroU32::MIN);
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &first.salt, password.as_bytes(), &mut salted);
        let client = sign(&salted, b"Client Key");
        let server = sign(&salted, b"Server Key");
        Self { password, salt: first.salt.clone(), rounds: first.rounds, client, server }
    }

    /// The client's proof for what both sides said.
    fn proof(&self, signed: &str) -> [u8; 32] {
        let stored = digest::digest(&digest::SHA256, &self.client);
        let signature = sign(stored.as_ref(), signed.as_bytes());
        let mut proof = self.client;
        for (byte, other) in proof.iter_mut().zip(signature) {
            *byte ^= other;
        }
        proof
    }

    /// Whether the server knows the key too.
    fn is_signed(&self, server_final: &[u8], signed: &str) -> bool {
        let signature = server_final.strip_prefix(b"v=").and_then(|text| BASE64.decode(text).ok());
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.server);
        signature.is_some_and(|signature| hmac::verify(&key, signed.as_bytes(), &signature).is_ok())
    }
}

fn sign(key: &[u8], text: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    tag.as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

/// Reads `r=…,s=…,i=…`.
pub fn parse_server_first(data: &[u8]) -> Result<ServerFirst, &'static str> {
    const EXPECTED: &str = "the server's first word of SCRAM";
    let text = std::str::from_utf8(data).map_err(|_| EXPECTED)?;
    let mut parts = text.splitn(4, ',');
    let mut part = |name| parts.next().and_then(|part| part.strip_prefix(name)).ok_or(EXPECTED);
    let (nonce, salt, rounds) = (part("r=")?, part("s=")?, part("i=")?);
    let salt = BASE64.decode(salt).map_err(|_| EXPECTED)?;
    let rounds = rounds.parse().ok().filter(|rounds| (1..=MOST_ROUNDS).contains(rounds));
    let rounds = rounds.ok_or("a bearable number of SCRAM rounds")?;
    Ok(ServerFirst { nonce: nonce.to_owned(), salt, rounds })
}

/// The older hash: md5 of md5 of password and user, and the salt.
pub(super) fn md5(user: &str, password: &str, salt: [u8; 4]) -> String {
    let hex = |parts: [&[u8]; 2]| {
        let digest = Md5::new().chain_update(parts[0]).chain_update(parts[1]).finalize();
        digest.iter().fold(String::with_capacity(32), |mut hex, byte| {
            hex.push(char::from_digit(u32::from(byte >> 4), 16).expect("below 16"));
            hex.push(char::from_digit(u32::from(byte & 15), 16).expect("below 16"));
            hex
        })
    };
    let inner = hex([password.as_bytes(), user.as_bytes()]);
    format!("md5{}", hex([inner.as_bytes(), &salt]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of RFC 7677.
    #[test]
    fn the_proof_is_that_of_the_rfc() {
        let first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let parsed = parse_server_first(first.as_bytes()).expect("a first word");
        let key = SaltedKey::new("pencil".into(), &parsed);
        let signed = format!("n=user,r=rOprNGfwEbeRWgbNEkqO,{first},c=biws,r={}", parsed.nonce);
        assert_eq!(BASE64.encode(key.proof(&signed)), "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        assert!(key.is_signed(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", &signed));
        assert!(!key.is_signed(b"v=AAAA", &signed));
        assert!(!format!("{key:?}").contains("pencil"));
    }

    #[test]
    fn md5_is_that_of_the_documentation() {
        // md5(md5("secret" + "joe") + salt), worked out with md5sum.
        assert_eq!(md5("joe", "secret", [1, 2, 3, 4]), "md5850be429f1fe77df3f603ac424abb440");
    }

    #[test]
    fn unbearable_first_words_are_refused() {
        for bad in ["", "r=a", "r=a,s=b64?,i=1", "r=a,s=AAAA,i=0", "r=a,s=AAAA,i=4294967295", "s=AAAA,r=a,i=1"] {
            assert!(parse_server_first(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse_server_first(&bytes).ok();
        }
    }
}
