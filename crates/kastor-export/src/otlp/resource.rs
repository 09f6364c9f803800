//! Who speaks: resource attributes by OpenTelemetry's semantic conventions. No subprocess is asked.

use std::{env, path::Path};

use kastor::{Process, Value};
use opentelemetry_proto::tonic::{common::v1::KeyValue, resource::v1::Resource};

use super::value::{AttributeWriter, integer, text};
use crate::redact::Redaction;

/// The attributes of a process. Those that were given win over those that were found, the later over the earlier.
pub(crate) fn resource(process: Process, given: &[(String, String)], redaction: &Redaction) -> Resource {
    let mut attributes = found(process);
    let mut writer = AttributeWriter::new(redaction.clone());
    for (key, value) in given {
        attributes.retain(|attribute| attribute.key != *key);
        writer.push(&mut attributes, key, &Value::Str(value), usize::MAX);
    }
    Resource { attributes, ..Resource::default() }
}

fn found(process: Process) -> Vec<KeyValue> {
    if process.id != std::process::id() {
        return found_of_another(process);
    }
    let executable = env::current_exe().ok();
    let executable_name =
        executable.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let service = match &executable_name {
        Some(name) => format!("unknown_service:{name}"),
        None => "unknown_service".to_owned(),
    };
    let os = match env::consts::OS {
        "macos" => "darwin",
        os => os,
    };
    let architecture = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut attributes = vec![
        text("service.name", service),
        text("service.instance.id", uuid(process.instance_id)),
        text("telemetry.sdk.name", "kastor"),
        text("telemetry.sdk.language", "rust"),
        text("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        integer("process.pid", i64::from(process.id)),
        text("os.type", os),
        text("host.arch", architecture),
    ];
    attributes.extend(executable_name.map(|name| text("process.executable.name", name)));
    attributes.extend(host_name().map(|name| text("host.name", name)));
    attributes
}

/// Of a process whose capture is read here: where it ran, and what it was called, nobody told.
fn found_of_another(process: Process) -> Vec<KeyValue> {
    vec![
        text("service.name", "unknown_service".to_owned()),
        text("service.instance.id", uuid(process.instance_id)),
        text("telemetry.sdk.name", "kastor"),
        text("telemetry.sdk.language", "rust"),
        text("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        integer("process.pid", i64::from(process.id)),
    ]
}

/// 128 random bits in the form of a UUID, version 4.
fn uuid(id: u128) -> String {
    let id = id & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{id:032x}");
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

#[cfg(unix)]
fn host_name() -> Option<String> {
    let mut name = [0_u8; 256];
    // SAFETY: the buffer lives during the call, and its length is one more than what is said, so it ends with a zero.
    let result = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    let name = std::ffi::CStr::from_bytes_until_nul(&name).ok()?.to_string_lossy().into_owned();
    (result == 0 && !name.is_empty()).then_some(name)
}

#[cfg(not(unix))]
fn host_name() -> Option<String> {
    env::var("COMPUTERNAME").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(resource: &Resource, key: &str) -> Option<String> {
        let found: Vec<&KeyValue> = resource.attributes.iter().filter(|attribute| attribute.key == key).collect();
        assert!(found.len() <= 1, "{key} is there twice");
        found.first().map(|attribute| format!("{:?}", attribute.value.as_ref().unwrap().value.as_ref().unwrap()))
    }

    #[test]
    fn a_process_says_who_it_is_and_what_is_given_wins() {
        let process = Process { id: std::process::id(), instance_id: u128::MAX };
        let plain = resource(process, &[], &Redaction::default());
        assert!(value_of(&plain, "service.name").unwrap().contains("unknown_service:"));
        let id = value_of(&plain, "service.instance.id").unwrap();
        assert!(id.contains("ffffffff-ffff-4fff-bfff-ffffffffffff"), "{id}");
        assert_eq!(value_of(&plain, "process.pid").unwrap(), format!("IntValue({})", process.id));
        for key in ["host.name", "os.type", "process.executable.name", "telemetry.sdk.name", "telemetry.sdk.version"] {
            assert!(value_of(&plain, key).is_some(), "{key}");
        }
        let another = resource(Process { id: process.id + 1, ..process }, &[], &Redaction::default());
        assert!(value_of(&another, "service.instance.id").is_some() && value_of(&another, "host.name").is_none());
        let given = [("service.name", "shop"), ("a", "1"), ("a", "2"), ("db.password", "x")];
        let given = given.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let told = resource(process, &given, &Redaction::default());
        assert!(value_of(&told, "service.name").unwrap().contains("shop"));
        assert!(value_of(&told, "a").unwrap().contains('2'));
        assert!(value_of(&told, "db.password").unwrap().contains("redacted"));
    }
}
