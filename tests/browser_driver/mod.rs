//! A headless Chromium, told what to do through its debugging pipe: no driver program and no WebSocket between.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::needless_pass_by_value)]

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};

/// One browser with one page.
pub struct Browser {
    child: Child,
    to: File,
    from: File,
    pending: Vec<u8>,
    session: Option<String>,
    last: u64,
    /// What the page's console was told: errors, refused scripts.
    pub complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts it with an empty page.
    pub fn start() -> Self {
        let program = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
            std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(name).exists())
        });
        let program = program.expect("a Chromium is installed: apt-get install chromium");
        let profile = tempfile::tempdir().unwrap();
        let (to, from) = (profile.path().join("to"), profile.path().join("from"));
        assert!(Command::new("mkfifo").arg(&to).arg(&from).status().unwrap().success());
        let script = format!(
            "exec {program} --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
             --user-data-dir={} --remote-debugging-pipe about:blank 3<{} 4>{}",
            profile.path().join("profile").display(),
            to.display(),
            from.display()
        );
        let child =
            Command::new("sh").arg("-c").arg(script).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let to = File::options().write(true).open(to).unwrap();
        let from = File::open(from).unwrap();
        let mut browser = Self {
            child,
            to,
            from,
            pending: Vec::new(),
            session: None,
            last: 0,
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls one method of the debugging protocol and waits for its result.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let answer = self.read();
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.hear(&answer);
        }
    }

    fn read(&mut self) -> Value {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = self.pending.drain(..=end).collect();
                return serde_json::from_slice(&message[..end]).unwrap();
            }
            let mut bytes = [0; 64 * 1024];
            let read = self.from.read(&mut bytes).unwrap();
            assert!(read > 0, "the browser has ended");
            self.pending.extend_from_slice(&bytes[..read]);
        }
    }

    fn hear(&mut self, event: &Value) {
        match event["method"].as_str() {
            Some("Log.entryAdded") => self.complaints.push(event["params"]["entry"]["text"].to_string()),
            Some("Runtime.exceptionThrown") => self.complaints.push(event["params"]["exceptionDetails"].to_string()),
            _ => {}
        }
    }

    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
    }

    /// What an expression is in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let result = self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true}));
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page.
    pub fn until(&mut self, expression: &str) {
        self.until_with(expression, || {});
    }

    /// The same, with something that is done again before each look.
    pub fn until_with(&mut self, expression: &str, again: impl Fn()) {
        again();
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.value(expression) != json!(true) {
            if Instant::now() > deadline {
                let text = self.value("document.body.innerText");
                panic!("never: {expression}\n{}\n{:?}", text.as_str().unwrap_or_default(), self.complaints);
            }
            self.call(
                "Runtime.evaluate",
                json!({
                "expression": "new Promise((done) => setTimeout(done, 20))", "awaitPromise": true}),
            );
            again();
        }
    }

    /// What a reader sees.
    pub fn text(&mut self) -> String {
        self.value("document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Types a text, key by key.
    pub fn keys(&mut self, text: &str) {
        for character in text.chars() {
            let key = json!({"type": "keyDown", "text": character.to_string(), "key": character.to_string()});
            self.call("Input.dispatchKeyEvent", key);
            self.call("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": character.to_string()}));
        }
    }

    /// Presses a key that is no character.
    pub fn press(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            self.call(
                "Input.dispatchKeyEvent",
                json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}),
            );
        }
    }

    /// Takes a picture into the tests' artefacts.
    pub fn picture(&mut self, name: &str) {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let png = base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pictures");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("{name}.png")), png).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
