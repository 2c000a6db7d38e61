//! Hides secrets in what people are shown: everything but the last four characters.

use toml::{Table, Value};

/// Whether the setting with this name holds a credential.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    matches!(name.as_str(), "sdk_keys" | "mobile_keys" | "token")
        || ["secret", "password", "passphrase", "credential", "access_key", "account_key", "session_token"]
            .iter()
            .any(|part| name.contains(part))
        // Of object stores, a signature; but Kafka's settings are called sasl.
        || (name.contains("sas") && !name.starts_with("sasl"))
        // A private key as text; certificates are public.
        || name.ends_with("key.pem") || name.ends_with("key_pem")
}

/// `****` and the last four characters; of a short text nothing, as four characters would be most of it.
pub fn mask(secret: &str) -> String {
    if secret.is_empty() {
        // One that is not set.
        return String::new();
    }
    let count = secret.chars().count();
    let shown: String = if count > 8 { secret.chars().skip(count - 4).collect() } else { String::new() };
    format!("****{shown}")
}

/// Masks every secret in a tree of settings.
pub fn mask_table(table: &mut Table) {
    for (name, value) in table.iter_mut() {
        if is_secret(name) { mask_value(value) } else { descend(value) }
    }
}

fn descend(value: &mut Value) {
    match value {
        Value::Table(table) => mask_table(table),
        Value::Array(values) => values.iter_mut().for_each(descend),
        _ => {}
    }
}

/// Masks every text in a value, whatever its shape.
pub fn mask_value(value: &mut Value) {
    match value {
        Value::String(text) => *text = mask(text),
        Value::Array(values) => values.iter_mut().for_each(mask_value),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| mask_value(value)),
        // A number in the place of a secret is the secret, written wrongly.
        other => *other = Value::String(mask(&other.to_string())),
    }
}
