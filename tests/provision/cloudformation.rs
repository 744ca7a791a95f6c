//! A template of CloudFormation, rendered as CloudFormation does: parameters with their defaults, conditions, mappings,
//! and the functions that ours uses. Whatever it does not know stops the test.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_yaml_ng::Value;

/// What CloudFormation itself knows of a stack, and what AWS would answer for its resources.
pub const ACCOUNT: [(&str, &str); 6] = [
    ("AWS::StackName", "cellar"),
    ("AWS::StackId", "arn:aws:cloudformation:eu-west-1:123456789012:stack/cellar/1"),
    ("AWS::Region", "eu-west-1"),
    ("AWS::Partition", "aws"),
    ("AWS::AccountId", "123456789012"),
    ("AWS::URLSuffix", "amazonaws.com"),
];

/// A template with the values of one stack.
#[derive(Debug)]
pub struct Stack {
    template: Value,
    values: BTreeMap<String, String>,
}

impl Stack {
    /// The shipped template with these parameters; each must be one of its own, and fit.
    pub fn new(parameters: &[(&str, &str)]) -> Self {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/examples/ec2/template.yaml");
        let template: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let mut values: BTreeMap<String, String> = ACCOUNT.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let known = template["Parameters"].as_mapping().unwrap();
        for (name, _) in parameters {
            assert!(known.contains_key(*name), "the template has no parameter {name}");
        }
        for (name, described) in known {
            let name = name.as_str().unwrap();
            let given = parameters.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned());
            let value = given.or_else(|| Some(plain(&described["Default"]))).filter(|value| value != "~");
            let value = value.unwrap_or_else(|| panic!("{name} has no default"));
            fits(name, described, &value);
            values.insert(name.to_owned(), value);
        }
        Self { template, values }
    }

    /// The user data of a launch template, decoded.
    pub fn user_data(&self, launch_template: &str) -> String {
        let data = &self.template["Resources"][launch_template]["Properties"]["LaunchTemplateData"]["UserData"];
        let bytes = STANDARD.decode(text(self.render(data))).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// A property of a resource, rendered.
    pub fn property(&self, resource: &str, name: &str) -> Value {
        self.render(&self.template["Resources"][resource]["Properties"][name])
    }

    /// The names of the resources of a type that this stack has.
    pub fn resources(&self, kind: &str) -> Vec<String> {
        let all = self.template["Resources"].as_mapping().unwrap().iter();
        let wanted = all.filter(|(_, resource)| resource["Type"] == kind && self.has(&resource["Condition"]));
        wanted.map(|(name, _)| name.as_str().unwrap().to_owned()).collect()
    }

    /// Whether the policies of a role let it do something to a resource: statements that allow, wildcards and all. A
    /// condition on tags holds for resources whose tags are these.
    pub fn lets(&self, role: &str, action: &str, resource: &str, tags: &[(&str, &str)]) -> bool {
        let own = self.property(role, "Policies");
        let own = own.as_sequence().into_iter().flatten().map(|policy| policy["PolicyDocument"].clone());
        let shared = self.resources("AWS::IAM::Policy");
        let of_role = |policy: &String| {
            let roles = self.property(policy, "Roles");
            roles.as_sequence().unwrap().iter().any(|one| *one == Value::String(Self::id(role)))
        };
        let shared = shared.into_iter().filter(of_role).map(|policy| self.property(&policy, "PolicyDocument"));
        own.chain(shared).any(|document| {
            document["Statement"].as_sequence().unwrap().iter().any(|statement| {
                let tagged = statement["Condition"]["StringEquals"].as_mapping();
                let holds = tagged.into_iter().flatten().all(|(key, value)| {
                    let tag = key
                        .as_str()
                        .unwrap()
                        .strip_prefix("aws:ResourceTag/")
                        .expect("no other condition is known here");
                    tags.contains(&(tag, value.as_str().unwrap()))
                });
                statement["Effect"] == "Allow"
                    && holds
                    && listed(&statement["Action"]).any(|one| one == action)
                    && listed(&statement["Resource"]).any(|one| matches(&one, resource))
            })
        })
    }

    /// The id that AWS would give a resource.
    pub fn id(name: &str) -> String {
        if name.ends_with("Volume") { format!("vol-{}", hex(name)) } else { format!("{}-id", name.to_lowercase()) }
    }

    fn has(&self, condition: &Value) -> bool {
        condition.as_str().is_none_or(|name| self.holds(&self.template["Conditions"][name]))
    }

    fn holds(&self, condition: &Value) -> bool {
        let (function, argument) = called(condition).expect("a condition is a function");
        let of = argument.as_sequence().expect("it has a list");
        match function.as_str() {
            "Equals" => text(self.render(&of[0])) == text(self.render(&of[1])),
            "Not" => !self.holds(&of[0]),
            other => panic!("the condition {other} is not known here"),
        }
    }

    fn render(&self, value: &Value) -> Value {
        if let Some((function, argument)) = called(value) {
            return self.call(&function, &argument);
        }
        match value {
            Value::Sequence(items) => Value::Sequence(items.iter().map(|item| self.render(item)).collect()),
            Value::Mapping(map) => {
                Value::Mapping(map.iter().map(|(key, item)| (key.clone(), self.render(item))).collect())
            }
            other => other.clone(),
        }
    }

    fn call(&self, function: &str, argument: &Value) -> Value {
        let item = |n: usize| self.render(&argument[n]);
        match function {
            "Ref" => self.reference(argument.as_str().unwrap()),
            "GetAtt" => Value::String(argument.as_str().unwrap().to_lowercase().replace('.', "-")),
            "Base64" => Value::String(STANDARD.encode(text(self.render(argument)))),
            "Sub" => Value::String(self.substitute(argument)),
            "If" => {
                let holds = self.holds(&self.template["Conditions"][argument[0].as_str().unwrap()]);
                item(if holds { 1 } else { 2 })
            }
            "Join" => {
                let parts: Vec<String> = item(1).as_sequence().unwrap().iter().cloned().map(text).collect();
                Value::String(parts.join(&text(item(0))))
            }
            "FindInMap" => {
                let [map, first, second] = [0, 1, 2].map(|n| text(item(n)));
                self.template["Mappings"][map.as_str()][first.as_str()][second.as_str()].clone()
            }
            other => panic!("the function {other} is not known here"),
        }
    }

    /// A parameter's value, a list where it is one, or the id of a resource.
    fn reference(&self, name: &str) -> Value {
        let Some(value) = self.values.get(name) else {
            assert!(!self.template["Resources"][name].is_null(), "{name} is neither a parameter nor a resource");
            return Value::String(Self::id(name));
        };
        if self.template["Parameters"][name]["Type"] == "CommaDelimitedList" {
            return Value::Sequence(value.split(',').map(|part| Value::String(part.trim().to_owned())).collect());
        }
        Value::String(value.clone())
    }

    fn substitute(&self, argument: &Value) -> String {
        let (pattern, own) = match argument {
            Value::Sequence(parts) => (parts[0].as_str().unwrap(), parts[1].as_mapping().cloned().unwrap()),
            other => (other.as_str().unwrap(), serde_yaml_ng::Mapping::new()),
        };
        let mut parts = pattern.split("${");
        let mut made = parts.next().unwrap().to_owned();
        for part in parts {
            let (name, rest) = part.split_once('}').unwrap();
            let value = own.get(name).map_or_else(|| self.reference(name), |value| self.render(value));
            made += &text(value);
            made += rest;
        }
        made
    }
}

/// One text, or several.
fn listed(value: &Value) -> impl Iterator<Item = String> + use<> {
    let several = value.as_sequence().cloned().unwrap_or_else(|| vec![value.clone()]);
    several.into_iter().map(text)
}

/// An ARN with `*` for any text.
fn matches(pattern: &str, arn: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = arn.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// A function by its tag (`!Ref x`) or its long name (`Fn::Sub: x`).
fn called(value: &Value) -> Option<(String, Value)> {
    if let Value::Tagged(tagged) = value {
        return Some((tagged.tag.to_string().trim_start_matches('!').to_owned(), tagged.value.clone()));
    }
    let map = value.as_mapping().filter(|map| map.len() == 1)?;
    let (key, argument) = map.iter().next()?;
    let name = key.as_str()?.strip_prefix("Fn::")?;
    Some((name.to_owned(), argument.clone()))
}

fn fits(name: &str, described: &Value, value: &str) {
    if let Some(longest) = described["MaxLength"].as_u64() {
        assert!(value.len() as u64 <= longest, "{name} is too long");
    }
    if let Some(allowed) = described["AllowedValues"].as_sequence() {
        assert!(allowed.iter().any(|one| plain(one) == value), "{name} may not be {value}");
    }
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => plain(&other),
    }
}

/// A scalar as it is written; `~` for none.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "~".into(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        other => panic!("{other:?} is no scalar"),
    }
}

fn hex(name: &str) -> String {
    name.bytes().fold(String::new(), |made, byte| made + &format!("{byte:02x}"))
}
