//! MySQL and MariaDB: one handshake, carried to its end.
//!
//! A server counts handshakes that break off and in the end blocks the host they come from; so even without a login
//! one is tried, and being denied access is an answer. `caching_sha2_password` is followed as far as its fast path:
//! beyond it the password itself would have to be sent.

use ring::digest;
use sha2::{Digest as _, Sha256};

use super::{Connection, Parsed, WireError, quote};

/// The longest packet that is read.
const LONGEST: usize = 16 * 1024;

/// A login.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// The user.
    pub user: &'a str,
    /// The password; empty for none.
    pub password: &'a str,
}

/// How the handshake ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// With a session, which was ended at once.
    LetIn,
    /// With a refusal.
    Refused {
        /// The server's error number.
        code: u16,
        /// Its words, escaped and cut.
        message: String,
    },
}

/// One packet of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its place in the exchange.
    pub sequence: u8,
    /// What it holds.
    pub payload: Vec<u8>,
}

/// The server's first word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// What a password is hashed with.
    pub salt: Vec<u8>,
    /// How passwords are proved.
    pub plugin: Vec<u8>,
}

/// Goes through a whole handshake.
pub async fn shake_hands(connection: &mut Connection, login: Login<'_>) -> Result<Reply, WireError> {
    let first = connection.reply(parse).await?;
    if first.payload.first() == Some(&0xff) {
        return Ok(refusal(&first.payload));
    }
    let greeting = parse_greeting(&first.payload).map_err(garbled)?;
    let response = response(login, &greeting);
    connection.send_secret(&packet(first.sequence.wrapping_add(1), &response)).await?;
    // A change of plugin, a fast path and an end: more than that is no handshake.
    for _ in 0..4 {
        let next = connection.reply(parse).await?;
        let answer = match next.payload.as_slice() {
            [0x00, ..] => {
                const COM_QUIT: u8 = 1;
                // Whether it hears this or not, it let us in.
                connection.send(&packet(0, &[COM_QUIT])).await.ok();
                connection.finish().await;
                return Ok(Reply::LetIn);
            }
            // What it says in words may be an echo of what it was told.
            [0xff, ..] => return Ok(wordless(&refusal(&next.payload))),
            [0xfe, rest @ ..] => {
                let greeting = parse_switch(rest);
                prove(login.password, &greeting)
            }
            // The fast path went well: the end follows.
            [0x01, 0x03] => continue,
            // The password itself is wanted, which is not sent; a single zero gives it up in an orderly way.
            [0x01, 0x04] => vec![0],
            _ => return Err(garbled("the end of the handshake")),
        };
        connection.send_secret(&packet(next.sequence.wrapping_add(1), &answer)).await?;
    }
    Err(garbled("the end of the handshake"))
}

fn wordless(reply: &Reply) -> Reply {
    match reply {
        Reply::Refused { code, .. } => Reply::Refused { code: *code, message: String::new() },
        Reply::LetIn => Reply::LetIn,
    }
}

fn garbled(expected: &'static str) -> WireError {
    WireError::Garbled { expected, got: "another packet".to_owned() }
}

/// Reads one packet.
pub fn parse(buffer: &[u8]) -> Parsed<Packet> {
    const EXPECTED: &str = "a MySQL packet";
    let Some(&[low, middle, high, sequence]) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
    if length == 0 || length > LONGEST {
        return Err(EXPECTED);
    }
    let Some(payload) = buffer.get(4..4 + length) else { return Ok(None) };
    Ok(Some((Packet { sequence, payload: payload.to_vec() }, 4 + length)))
}

/// Reads the server's first word (protocol 10, which all have had since 1998).
pub fn parse_greeting(payload: &[u8]) -> Result<Greeting, &'static str> {
    const EXPECTED: &str = "a MySQL greeting";
    let rest = payload.strip_prefix(&[10]).ok_or(EXPECTED)?;
    let version = rest.iter().position(|byte| *byte == 0).ok_or(EXPECTED)?;
    let rest = rest.get(version + 1 + 4..).ok_or(EXPECTED)?;
    let mut salt = rest.get(..8).ok_or(EXPECTED)?.to_vec();
    // Filler, capabilities, character set, status, capabilities, length of the salt, reserved.
    let rest = rest.get(8 + 1 + 2 + 1 + 2 + 2 + 1 + 10..).ok_or(EXPECTED)?;
    salt.extend_from_slice(rest.get(..12).ok_or(EXPECTED)?);
    let plugin = rest.get(13..).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Greeting { salt, plugin: plugin.to_vec() })
}

/// Reads the wish for another plugin.
fn parse_switch(rest: &[u8]) -> Greeting {
    let mut parts = rest.splitn(2, |byte| *byte == 0);
    let plugin = parts.next().unwrap_or_default().to_vec();
    let salt = parts.next().unwrap_or_default();
    Greeting { salt: salt.strip_suffix(&[0]).unwrap_or(salt).to_vec(), plugin }
}

fn response(login: Login<'_>, greeting: &Greeting) -> Vec<u8> {
    const PROTOCOL_41: u32 = 0x200;
    const SECURE_CONNECTION: u32 = 0x8000;
    const PLUGIN_AUTH: u32 = 0x8_0000;
    const UTF8: u8 = 33;
    let mut body = (PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH).to_le_bytes().to_vec();
    body.extend_from_slice(&(1u32 << 24).to_le_bytes());
    body.push(UTF8);
    body.extend_from_slice(&[0; 23]);
    push_text(&mut body, login.user.as_bytes());
    let proof = prove(login.password, greeting);
    body.push(u8::try_from(proof.len()).unwrap_or(0));
    body.extend_from_slice(&proof);
    push_text(&mut body, &greeting.plugin);
    body
}

/// Proves the password in the way wanted; nothing at all for an empty one or a way that is not known.
fn prove(password: &str, greeting: &Greeting) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let salt = &greeting.salt;
    match greeting.plugin.as_slice() {
        b"mysql_native_password" | b"" => {
            let hash = |parts: &[&[u8]]| {
                let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
                parts.iter().for_each(|part| context.update(part));
                context.finish()
            };
            let once = hash(&[password.as_bytes()]);
            let twice = hash(&[once.as_ref()]);
            xor(once.as_ref(), hash(&[salt, twice.as_ref()]).as_ref())
        }
        b"caching_sha2_password" => {
            let once = Sha256::digest(password.as_bytes());
            let twice = Sha256::digest(once);
            xor(&once, &Sha256::new().chain_update(twice).chain_update(salt).finalize())
        }
        _ => Vec::new(),
    }
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(one, other)| one ^ other).collect()
}

fn push_text(body: &mut Vec<u8>, text: &[u8]) {
    body.extend(text.iter().take_while(|byte| **byte != 0));
    body.push(0);
}

fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut packet = vec![length[0], length[1], length[2], sequence];
    packet.extend_from_slice(payload);
    packet
}

/// Reads an error packet.
fn refusal(payload: &[u8]) -> Reply {
    let code = payload.get(1..3).map_or(0, |code| u16::from_le_bytes([code[0], code[1]]));
    let message = payload.get(3..).unwrap_or_default();
    let message = match message {
        [b'#', _, _, _, _, _, rest @ ..] => rest,
        plain => plain,
    };
    Reply::Refused { code, message: quote(message) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn greeting(plugin: &str) -> Vec<u8> {
        let mut payload = b"\x0a8.0.36\0\x01\0\0\0abcdefgh\0\xff\xff\x21\x02\0\xff\xff\x15".to_vec();
        payload.extend_from_slice(&[0; 10]);
        payload.extend_from_slice(b"ijklmnopqrst\0");
        payload.extend_from_slice(plugin.as_bytes());
        payload.push(0);
        payload
    }

    #[test]
    fn a_greeting_tells_salt_and_plugin() {
        let read = parse_greeting(&greeting("caching_sha2_password")).expect("a greeting");
        assert_eq!(
            (read.salt.as_slice(), read.plugin.as_slice()),
            (&b"abcdefghijklmnopqrst"[..], &b"caching_sha2_password"[..])
        );
        for bad in [&b""[..], b"\x09x\0", b"\x0a5.5", b"\x0a5.5\0abcdefg"] {
            assert!(parse_greeting(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn refusals_lose_their_sqlstate() {
        let expected = Reply::Refused { code: 1045, message: "\"Access denied\"".to_owned() };
        assert_eq!(refusal(b"\xff\x15\x04#28000Access denied"), expected);
        assert_eq!(refusal(b"\xff"), Reply::Refused { code: 0, message: "\"\"".to_owned() });
    }

    #[test]
    fn packets_are_read_whole() {
        assert_eq!(parse(b"\x01\0\0\x05x"), Ok(Some((Packet { sequence: 5, payload: b"x".to_vec() }, 5))));
        assert_eq!(parse(b"\x02\0\0\x05x"), Ok(None));
        assert!(parse(b"\xff\xff\xff\0").is_err());
        assert!(parse(b"\0\0\0\0").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes).ok();
            parse_greeting(&bytes).ok();
            prove("secret", &parse_switch(&bytes));
            refusal(&bytes);
        }
    }
}
