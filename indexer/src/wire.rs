//! What processes tell each other and JSON alone would blow up or change: bytes, and numbers.
//!
//! Bytes are base64. Values of filters are written with the bits of their floats, as a float that is written as text and read
//! again may be its neighbour, which no stored value equals.

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

/// `#[serde(with = "wire::bytes")]`
pub mod bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD_NO_PAD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD_NO_PAD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// `#[serde(with = "wire::value")]`
pub mod value {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    use super::Exact;

    pub fn serialize<S: Serializer>(value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
        Exact::from(value).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        Exact::deserialize(deserializer).map(Value::from)
    }
}

/// `#[serde(with = "wire::values")]`
pub mod values {
    use serde::{Deserialize, Deserializer, Serializer};
    use serde_json::Value;

    use super::Exact;

    pub fn serialize<S: Serializer>(values: &[Value], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(Exact::from))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Value>, D::Error> {
        let values = Vec::<Exact>::deserialize(deserializer)?;
        Ok(values.into_iter().map(Value::from).collect())
    }
}

/// A JSON value that reads back as it was.
#[derive(Serialize, Deserialize)]
enum Exact {
    Null,
    Bool(bool),
    Integer(i64),
    Natural(u64),
    /// Its bits.
    Float(u64),
    Text(String),
    List(Vec<Exact>),
    Map(Vec<(String, Exact)>),
}

impl From<&Value> for Exact {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(integer), ..) => Self::Integer(integer),
                (None, Some(natural), _) => Self::Natural(natural),
                (None, None, float) => Self::Float(float.unwrap_or_default().to_bits()),
            },
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(elements) => Self::List(elements.iter().map(Self::from).collect()),
            Value::Object(members) => {
                Self::Map(members.iter().map(|(name, value)| (name.clone(), Self::from(value))).collect())
            }
        }
    }
}

impl From<Exact> for Value {
    fn from(exact: Exact) -> Self {
        match exact {
            Exact::Null => Self::Null,
            Exact::Bool(value) => Self::Bool(value),
            Exact::Integer(integer) => integer.into(),
            Exact::Natural(natural) => natural.into(),
            Exact::Float(bits) => Number::from_f64(f64::from_bits(bits)).map_or(Self::Null, Self::Number),
            Exact::Text(text) => Self::String(text),
            Exact::List(elements) => Self::Array(elements.into_iter().map(Self::from).collect()),
            Exact::Map(members) => {
                Self::Object(members.into_iter().map(|(name, value)| (name, Self::from(value))).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use events::Environment;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::ask::Search;
    use crate::filter::{Filter, Subject};
    use crate::page::Sort;
    use crate::peers::Asked;
    use crate::search::SearchRequest;

    fn told(filter: &Filter) -> Filter {
        serde_json::from_slice(&serde_json::to_vec(filter).unwrap()).unwrap()
    }

    #[test]
    fn filters_read_back_as_they_were() {
        for text in [
            "",
            r#"kind anyOf ["user","org"]|(plan equals gold,seats notEquals 1e300)"#,
            r#"user.a equals [1,-2,18446744073709551615,0.1,{"b":[true,"c"]}]"#,
            r#"q equals ["ana souza","b"],name exists false,groups contains [1,"ops"]"#,
            r#"joined after "2026-01-15T00:00:00.123456789+02:00",user./address/city startsWith Re"#,
            r#"kind:{"equals":["org","device"]}"#,
        ] {
            let filter = Filter::parse(text, Subject::Contexts).unwrap();
            assert_eq!(told(&filter), filter, "{text}");
        }
    }

    /// JSON is read to a depth of 128, and everything in a filter takes several.
    #[test]
    fn deepest_filters_are_told() {
        let deepest = |text: &dyn Fn(usize) -> String| {
            let parsed = |depth| Filter::parse(&text(depth), Subject::Contexts).ok();
            (1..100).map_while(parsed).last().unwrap()
        };
        let value = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        let deepest_value = (1..100)
            .take_while(|depth| Filter::parse(&format!("a equals {}", value(*depth)), Subject::Contexts).is_ok());
        let value = value(deepest_value.last().unwrap());
        let filter = deepest(&|depth| {
            format!("{}a equals {value}{}", "(b equals 1|c equals 2,".repeat(depth), ")".repeat(depth))
        });
        let filter = filter.with_keys(vec!["a".into()]);
        let request = SearchRequest {
            environment: Environment::new("shop", "prod"),
            filter: filter.clone(),
            sort: Sort::KindKey,
            limit: 1,
            after: None,
        };
        let inquiry = Search { request, since: None, ranking: None, kinds: Vec::new() };
        let asked = serde_json::to_vec(&Asked { partitions: vec![0], inquiry }).unwrap();
        let read: Asked<Search> = serde_json::from_slice(&asked).unwrap();
        assert_eq!(read.inquiry.request.filter, filter);
    }

    proptest! {
        #[test]
        fn floats_keep_their_bits(bits: u64) {
            let float = f64::from_bits(bits);
            prop_assume!(float.is_finite());
            let value = json!({"a": [float]});
            let read = Value::from(serde_json::from_str::<Exact>(&serde_json::to_string(&Exact::from(&value)).unwrap()).unwrap());
            prop_assert_eq!(read["a"][0].as_f64().unwrap().to_bits(), bits);
        }
    }
}
