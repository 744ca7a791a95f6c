//! EC2 as the hosts of one stack see it: each instance's metadata (IMDSv2), and the few calls to AWS that their roles
//! may make. It asks for what AWS asks for (a token, a signature of the right service with the role's own session),
//! keeps to the template's policies, and writes down what was done.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::cloudformation::Stack;
use crate::lab::Alone;
use crate::lab::host::Host;

/// Where AWS has it, on every instance.
const METADATA: &str = "169.254.169.254";

/// An instance: who it is, and what its group wants of it.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// `main`, `worker` or `data`.
    pub role: &'static str,
    /// Its zone.
    pub zone: &'static str,
    /// Whether its group ends it.
    pub ending: bool,
}

/// What was asked for and done.
#[derive(Debug, Default)]
pub struct Done {
    /// Instances by address.
    pub instances: BTreeMap<Ipv4Addr, Instance>,
    /// Parameters by name.
    pub parameters: BTreeMap<String, String>,
    /// Volume and instance of each attachment.
    pub attached: Vec<(String, String)>,
    /// Instances that said that they serve.
    pub signalled: Vec<String>,
    /// Group and instance whose end may go on.
    pub completed: Vec<(String, String)>,
    /// What was refused, and why.
    pub refused: Vec<String>,
}

/// The cloud; its thread ends with the process.
#[derive(Clone, Debug)]
pub struct Cloud {
    stack: Arc<Stack>,
    done: Arc<Mutex<Done>>,
    at: SocketAddr,
}

/// One request.
struct Request {
    from: Ipv4Addr,
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
}

type Reply = Result<String, (u16, String)>;

impl Cloud {
    /// Begins to answer.
    pub fn start(lab: &Alone, stack: Arc<Stack>, parameters: BTreeMap<String, String>) -> Self {
        let listener = TcpListener::bind((lab.ground().address(254), 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let cloud = Self { stack, done: Arc::new(Mutex::new(Done { parameters, ..Done::default() })), at };
        let served = cloud.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is its own affair.
                let _ = served.serve(&stream);
            }
        });
        cloud
    }

    /// What was done so far.
    pub fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap()
    }

    /// Runs an instance on a host.
    pub fn launch(&self, host: &Host, instance: Instance) {
        self.done().instances.insert(host.address(), instance);
        let words = self.rule(host, "-C");
        if words.is_err() {
            self.rule(host, "-A").unwrap();
        }
    }

    /// Its group wants it to end.
    pub fn end(&self, host: &Host) {
        self.done().instances.get_mut(&host.address()).unwrap().ending = true;
    }

    fn rule(&self, host: &Host, verb: &str) -> Result<String, String> {
        let to = self.at.to_string();
        let mut words = vec!["iptables", verb, "OUTPUT", "-t", "nat", "-d", METADATA, "-p", "tcp", "--dport", "80"];
        words.extend(["-j", "DNAT", "--to-destination", &to]);
        host.try_exec(&words)
    }

    fn serve(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let Some(request) = Request::read(stream)? else { return Ok(()) };
        let reply = if request.path.starts_with("/latest/") { self.metadata(&request) } else { self.api(&request) };
        let (status, body) = reply.map_or_else(|refused| refused, |body| (200, body));
        if ![200, 404].contains(&status) {
            let asked = format!("{} {} {}: {status} {body}", request.method, request.path, request.body);
            self.done().refused.push(asked);
        }
        write!(stream, "HTTP/1.0 {status} said\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn metadata(&self, request: &Request) -> Reply {
        if request.method == "PUT" && request.path == "/latest/api/token" {
            let asked = request.headers.contains_key("x-aws-ec2-metadata-token-ttl-seconds");
            return if asked { Ok("a-token".into()) } else { Err((400, "no TTL".into())) };
        }
        if request.headers.get("x-aws-ec2-metadata-token").map(String::as_str) != Some("a-token") {
            return Err((401, "no token".into()));
        }
        let instance = self.instance(request)?;
        let region = &instance.zone[..instance.zone.len() - 1];
        Ok(match request.path.trim_start_matches("/latest/meta-data/") {
            "instance-id" => instance.id,
            "local-ipv4" => request.from.to_string(),
            "placement/availability-zone" => instance.zone.to_owned(),
            "placement/region" => region.to_owned(),
            "autoscaling/target-lifecycle-state" => if instance.ending { "Terminated" } else { "InService" }.into(),
            "iam/security-credentials/" => format!("{}-role", instance.role),
            path if path == format!("iam/security-credentials/{}-role", instance.role) => format!(
                "{{\n  \"Code\" : \"Success\",\n  \"AccessKeyId\" : \"AKIA{0}\",\n  \"SecretAccessKey\" : \"s/{0}\",\n  \
                 \"Token\" : \"session-{0}\"\n}}",
                instance.role
            ),
            path => return Err((404, path.to_owned())),
        })
    }

    fn instance(&self, request: &Request) -> Result<Instance, (u16, String)> {
        let found = self.done().instances.get(&request.from).cloned();
        found.ok_or_else(|| (404, format!("{} is no instance", request.from)))
    }

    fn api(&self, request: &Request) -> Reply {
        let instance = self.instance(request)?;
        let form = request.form();
        let (service, action) = match request.headers.get("x-amz-target") {
            Some(target) => ("ssm", target.trim_start_matches("AmazonSSM.").to_owned()),
            None => match form.get("Action").map(String::as_str).unwrap_or_default() {
                "AttachVolume" => ("ec2", "AttachVolume".to_owned()),
                "SignalResource" => ("cloudformation", "SignalResource".to_owned()),
                "CompleteLifecycleAction" => ("autoscaling", "CompleteLifecycleAction".to_owned()),
                other => return Err((400, format!("{other:?} is nothing that a host asks for"))),
            },
        };
        signed(request, service, instance.role)?;
        let field = |name: &str| form.get(name).cloned().ok_or_else(|| (400, format!("no {name}")));
        match action.as_str() {
            "GetParameter" => self.parameter(request, &instance),
            "AttachVolume" => {
                let (volume, to) = (field("VolumeId")?, field("InstanceId")?);
                for resource in [
                    format!("ec2:eu-west-1:123456789012:volume/{volume}"),
                    format!("ec2:eu-west-1:123456789012:instance/{to}"),
                ] {
                    self.lets(&instance, "ec2:AttachVolume", &resource, &[("wharf-member-of", "cellar")])?;
                }
                self.attach(volume, to)
            }
            "SignalResource" => {
                let group = field("LogicalResourceId")?;
                if !group.ends_with("Group") || field("StackName")? != stack_id() {
                    return Err((400, format!("no {group} here")));
                }
                self.lets(&instance, "cloudformation:SignalResource", stack_id().trim_start_matches("arn:aws:"), &[])?;
                self.done().signalled.push(field("UniqueId")?);
                Ok("<ok/>".into())
            }
            "CompleteLifecycleAction" => {
                let group = field("AutoScalingGroupName")?;
                let resource =
                    format!("autoscaling:eu-west-1:123456789012:autoScalingGroup:1:autoScalingGroupName/{group}");
                self.lets(&instance, "autoscaling:CompleteLifecycleAction", &resource, &[])?;
                self.done().completed.push((group, field("InstanceId")?));
                Ok("<ok/>".into())
            }
            other => Err((403, format!("a {} may not {other}", instance.role))),
        }
    }

    fn attach(&self, volume: String, instance: String) -> Reply {
        let mut done = self.done();
        let holder = done.attached.iter().rev().find(|(held, _)| *held == volume).map(|(_, by)| by.clone());
        let lives = |id: &String| done.instances.values().any(|instance| instance.id == *id);
        if holder.as_ref().is_some_and(|holder| *holder != instance && lives(holder)) {
            return Err((400, "VolumeInUse".into()));
        }
        done.attached.push((volume, instance));
        Ok("<ok/>".into())
    }

    /// As the template's policies have it, for the role of this instance.
    fn lets(
        &self,
        instance: &Instance,
        action: &str,
        resource: &str,
        tags: &[(&str, &str)],
    ) -> Result<(), (u16, String)> {
        let role = if instance.role == "main" { "MainRole" } else { "WorkerRole" };
        if self.stack.lets(role, action, &format!("arn:aws:{resource}"), tags) {
            return Ok(());
        }
        Err((403, format!("AccessDenied: {role} may not {action} on {resource}")))
    }

    fn parameter(&self, request: &Request, instance: &Instance) -> Reply {
        let asked: serde_json::Value = serde_json::from_str(&request.body).map_err(|error| (400, error.to_string()))?;
        let name = asked["Name"].as_str().unwrap_or_default();
        self.lets(instance, "ssm:GetParameter", &format!("ssm:eu-west-1:123456789012:parameter{name}"), &[])?;
        let value =
            self.done().parameters.get(name).cloned().ok_or_else(|| (400, format!("ParameterNotFound: {name}")))?;
        Ok(serde_json::json!({"Parameter": {"Name": name, "Type": "SecureString", "Value": value}}).to_string())
    }
}

fn stack_id() -> String {
    crate::cloudformation::ACCOUNT.iter().find(|(name, _)| *name == "AWS::StackId").unwrap().1.to_owned()
}

/// Signed for that service with the role's key, the session's token under the signature.
fn signed(request: &Request, service: &str, role: &str) -> Result<(), (u16, String)> {
    let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
    let signature = header("authorization");
    let scope = format!("/eu-west-1/{service}/aws4_request");
    let by = format!("AWS4-HMAC-SHA256 Credential=AKIA{role}/");
    let session =
        header("x-amz-security-token") == format!("session-{role}") && signature.contains("x-amz-security-token");
    if signature.starts_with(&by) && signature.contains(&scope) && session {
        return Ok(());
    }
    Err((403, format!("not signed for {service} by {role}: {signature}")))
}

impl Request {
    fn read(stream: &TcpStream) -> std::io::Result<Option<Self>> {
        let IpAddr::V4(from) = stream.peer_addr()?.ip() else { return Ok(None) };
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.insert(name.trim().to_lowercase(), value.trim().to_owned());
            }
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(Some(Self { from, method, path, headers, body: String::from_utf8_lossy(&body).into_owned() }))
    }

    fn form(&self) -> BTreeMap<String, String> {
        let pairs = self.body.split('&').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), unescaped(value))).collect()
    }
}

/// `%3A` and the like.
fn unescaped(value: &str) -> String {
    let mut parts = value.split('%');
    let mut made = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(2);
        made.push(char::from(u8::from_str_radix(code, 16).unwrap()));
        made += rest;
    }
    made
}
