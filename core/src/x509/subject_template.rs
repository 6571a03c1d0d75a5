//! A subject with variables, for devices that are made from one image:
//! `CN=${machine-id},O=Example`.

use super::issue::{IssueError, Subject};
use super::names::{Name, escaped, string};
use std::fmt;

/// The maximum length of a common name or serial number in X.520 (RFC 5280, appendix A.1:
/// ub-common-name, ub-serial-number).
const LONGEST: usize = 64;

/// A variable that a subject template may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectVariable {
    /// `${machine-id}`: machine-id(5).
    MachineId,
    /// `${dmi.serial}`: the serial number from the firmware (SMBIOS, System Information).
    DmiSerial,
    /// `${idev-id.serial}`: the serial number in the factory's certificate.
    IdevIdSerial,
}

/// A subject in the format of RFC 4514, whose values may contain variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectTemplate {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(SubjectVariable),
}

impl SubjectVariable {
    /// All variables.
    pub const ALL: [Self; 3] = [Self::MachineId, Self::DmiSerial, Self::IdevIdSerial];

    /// Returns the name of the variable, without `${` and `}`.
    pub fn name(self) -> &'static str {
        match self {
            Self::MachineId => "machine-id",
            Self::DmiSerial => "dmi.serial",
            Self::IdevIdSerial => "idev-id.serial",
        }
    }
}

impl fmt::Display for SubjectVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${{{}}}", self.name())
    }
}

impl SubjectTemplate {
    /// Parses a subject template.
    ///
    /// # Errors
    ///
    /// Fails if a variable is unknown or not closed, or if the other text is not a valid name.
    pub fn parse(text: &str) -> Result<Self, IssueError> {
        let wrong = |why: String| IssueError::Subject(format!("{text:?}: {why}"));
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once("${") {
            let (name, after) = behind
                .split_once('}')
                .ok_or_else(|| wrong("${ without a closing }".into()))?;
            let known = SubjectVariable::ALL.into_iter();
            let variable = known.clone().find(|one| one.name() == name);
            let variable = variable.ok_or_else(|| {
                let all: Vec<String> = known.map(|one| one.to_string()).collect();
                wrong(format!(
                    "there is no variable ${{{name}}}; the variables are {}",
                    all.join(", ")
                ))
            })?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Variable(variable));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let template = Self {
            text: text.to_owned(),
            parts,
        };
        template
            .with(|_| Ok::<_, IssueError>("x".into()))
            .map_err(|_| {
                wrong("it is not a subject; expected for example CN=${machine-id},O=Example".into())
            })?;
        Ok(template)
    }

    /// Returns the text of the subject template.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Replaces the variables of the template by `values`. Returns the subject as a string of RFC
    /// 4514 and as an X.501 Name. A value may contain any character; no character of a value is
    /// syntax.
    ///
    /// # Errors
    ///
    /// The errors of `values`. Also fails if a value is empty, too long, or not permitted in a
    /// name.
    pub fn with<E: From<IssueError>>(
        &self,
        value: impl Fn(SubjectVariable) -> Result<String, E>,
    ) -> Result<(String, Subject), E> {
        let mut text = String::new();
        let mut values = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(one) => text.push_str(one),
                Part::Variable(variable) => {
                    let one = value(*variable)?;
                    if let Some(why) = unfit(&one) {
                        let why = format!("{variable} {why}: {one:?}");
                        return Err(IssueError::Subject(why).into());
                    }
                    let _ = escaped(&mut text, &one);
                    values.push((*variable, one));
                }
            }
        }
        let subject = Subject::parse(&text)?;
        let name = Name::read(&subject.der);
        let holds = |value: &str| {
            let mut attributes = name.iter().flat_map(Name::attributes);
            attributes.any(|one| string(&one.value).is_some_and(|text| text.contains(value)))
        };
        match values.iter().find(|(_, value)| !holds(value)) {
            Some((variable, value)) => {
                let why = format!("{variable} is not in a value of {text:?}: {value:?}");
                Err(IssueError::Subject(why).into())
            }
            None => Ok((text, subject)),
        }
    }
}

/// Returns the reason why the value of a variable is not permitted in a name; `None` if it is
/// permitted.
fn unfit(value: &str) -> Option<&'static str> {
    if value.is_empty() {
        Some("is empty")
    } else if value.chars().any(char::is_control) {
        Some("contains control characters")
    } else if value.chars().count() > LONGEST {
        Some("has more than 64 characters")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(template: &str, value: &str) -> Result<String, String> {
        let words = |error: IssueError| match error {
            IssueError::Subject(why) | IssueError::Failed(why) => why,
        };
        let template = SubjectTemplate::parse(template).map_err(words)?;
        let subject = template.with(|_| Ok::<_, IssueError>(value.to_owned()));
        let (_, subject) = subject.map_err(words)?;
        Ok(Name::read(&subject.der).unwrap().to_string())
    }

    #[test]
    fn values_stand_in_a_name_as_they_are() {
        for (template, value, name) in [
            ("CN=${machine-id}", "abc", "CN=abc"),
            ("CN=n-${machine-id},O=Ex", "abc", "CN=n-abc,O=Ex"),
            (
                "O=Ex,serialNumber=${dmi.serial}",
                "S 1",
                "O=Ex,SERIALNUMBER=S 1",
            ),
            ("CN=${dmi.serial}", "a,O=evil", "CN=a\\,O=evil"),
            ("CN=${dmi.serial}", "a+b", "CN=a\\+b"),
            ("CN=${dmi.serial}", "a\\b\"<>;", "CN=a\\\\b\\\"\\<\\>\\;"),
            ("CN=${dmi.serial}", "${machine-id}", "CN=${machine-id}"),
            ("CN=${dmi.serial}", "Gerät", "CN=Gerät"),
        ] {
            assert_eq!(
                named(template, value),
                Ok(name.into()),
                "{template} {value}"
            );
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (template, value, why) in [
            (
                "CN=${machine}",
                "a",
                "no variable ${machine}; the variables are ${machine-id}, ",
            ),
            ("CN=${}", "a", "no variable ${}"),
            ("CN=${machine-id", "a", "without a closing }"),
            ("${machine-id}", "a", "not a subject"),
            ("", "a", "not a subject"),
            ("CN=${dmi.serial}", "", "${dmi.serial} is empty"),
            ("CN=${dmi.serial}", "a\nb", "control characters"),
            ("CN=${dmi.serial}", "a\0", "control characters"),
            ("CN=${dmi.serial}", &"x".repeat(65), "64 characters"),
        ] {
            let found = named(template, value).unwrap_err();
            assert!(found.contains(why), "{template:?} {value:?}: {found}");
        }
        assert!(named("CN=${dmi.serial}", &"x".repeat(64)).is_ok());
    }
}
