//! Legacy users: contexts of kind `user` as older clients know them.
//!
//! Places in a list are named by the sort value of its last record, as those clients expect; the links to the next page
//! name time and key, so that users seen in the same millisecond are neither repeated nor passed over.
//! Source: context-search-api section 9.

use std::collections::HashMap;

use events::Environment;
use runtime::UnixMicros;
use serde_json::{Map, Value, json};

use super::answers::{Answer, Link, Problem, path_segment, query_string, rfc3339, saturated};
use super::params::{limit_of, unique_params};
use super::{Api, Call};
use crate::ask::Ask;
use crate::attribute::AttributePath;
use crate::filter::{Expr, Field, Filter, FilterError, PREDICATES_MAX, Phrase, Predicate, Test, WORDS_MAX};
use crate::index::order_bytes;
use crate::page::{Place, Sort};
use crate::search::{FoundContext, SearchPage, SearchRequest};
use crate::wish::Wish;

const KIND: &str = "user";
const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 50;
/// Records passed over at most; each is read. Whoever goes further follows the links.
const OFFSET_MAX: usize = 10_000;
/// Attributes with places of their own in a user; the rest is `custom`.
const BUILT_IN: [&str; 8] = ["secondary", "ip", "country", "email", "firstName", "lastName", "avatar", "name"];
const KNOWN: [&str; 7] = ["q", "limit", "offset", "after", "sort", "searchAfter", "filter"];
const LISTED: [&str; 2] = ["limit", "searchAfter"];

/// A checked question.
struct Question {
    filter: Filter,
    limit: usize,
    offset: usize,
    seen_after: Option<UnixMicros>,
    /// Name as given, if one was.
    sort_name: Option<String>,
    sort: Sort,
    after: Option<Place>,
}

impl Question {
    fn parse(query: &str, known: &[&'static str]) -> Result<(Self, HashMap<&'static str, String>), Problem> {
        let params = unique_params(query, known)?;
        let text = |name: &str| params.get(name).map(String::as_str);
        let sort = match text("sort") {
            None | Some("userKey") => Sort::KindKey,
            Some("-userKey") => Sort::KeyDescending,
            Some("lastSeen") => Sort::OldestFirst,
            Some("-lastSeen") => Sort::NewestFirst,
            Some(_) => return Err(Problem::invalid("sort: expected userKey, -userKey, lastSeen or -lastSeen")),
        };
        let offset = limit_of("offset", text("offset").filter(|text| *text != "0"), 0, OFFSET_MAX + 1)?;
        if offset > OFFSET_MAX {
            return Err(Problem::invalid(format!("offset: at most {OFFSET_MAX}, follow the links beyond")));
        }
        let question = Self {
            filter: filter_of(text("q").unwrap_or_default(), text("filter").unwrap_or_default())?,
            limit: limit_of("limit", text("limit"), LIMIT_DEFAULT, LIMIT_MAX)?,
            offset,
            seen_after: text("after").map(|text| millis("after", text)).transpose()?,
            sort_name: text("sort").map(str::to_owned),
            sort,
            after: text("searchAfter").filter(|text| !text.is_empty()).map(|text| place_of(sort, text)).transpose()?,
        };
        Ok((question, params))
    }
}

fn millis(name: &str, text: &str) -> Result<UnixMicros, Problem> {
    let millis = text.parse::<i64>().ok().filter(|millis| *millis >= 0);
    let micros = millis.and_then(|millis| millis.checked_mul(1_000));
    micros.map(UnixMicros).ok_or_else(|| Problem::invalid(format!("{name}: expected epoch milliseconds")))
}

/// The place that `searchAfter` names: a user key, or a time with or without a key.
fn place_of(sort: Sort, text: &str) -> Result<Place, Problem> {
    match sort {
        Sort::KindKey | Sort::KeyDescending => {
            Ok(Place { time_key: 0, order: sort.order_key(&order_bytes(KIND, text)) })
        }
        Sort::OldestFirst | Sort::NewestFirst => match text.split_once('/') {
            Some((micros, key)) => {
                let micros = micros.parse().map_err(|_| Problem::invalid("searchAfter: expected a sort value"))?;
                Ok(Place { time_key: sort.time_key(micros), order: order_bytes(KIND, key) })
            }
            None => {
                // The whole millisecond is behind.
                let start = millis("searchAfter", text)?.0;
                let micros = if sort == Sort::OldestFirst { start.saturating_add(999) } else { start };
                Ok(Place { time_key: sort.time_key(micros), order: vec![u8::MAX; 2] })
            }
        },
    }
}

fn search_after(sort: Sort, last: &FoundContext) -> String {
    match sort {
        Sort::KindKey | Sort::KeyDescending => last.key.clone(),
        Sort::OldestFirst | Sort::NewestFirst => format!("{}/{}", last.last_seen.0, last.key),
    }
}

/// `q`: words in some attributes. `filter`: `attribute:value` pairs joined by commas, all of which must hold.
fn filter_of(q: &str, filter: &str) -> Result<Filter, Problem> {
    let is = |field, test| Expr::Is(Predicate { field, test, at: 0 });
    let mut parts = vec![is(Field::Kind, Test::Equals(KIND.into()))];
    let wanted = Phrase::new(q);
    if wanted.words.len() > WORDS_MAX {
        return Err(Problem::invalid(format!("q: at most {WORDS_MAX} words")));
    }
    if !wanted.words.is_empty() {
        parts.push(is(Field::UserText, Test::Words(vec![wanted])));
    }
    for pair in filter.split(',').filter(|pair| !pair.trim().is_empty()) {
        let (name, value) =
            pair.split_once(':').ok_or_else(|| FilterError::new(0, "expected attribute:value, joined by commas"))?;
        let (name, value) = (name.trim(), value.trim());
        let mut forms = vec![Value::from(value)];
        forms.extend(serde_json::from_str::<Value>(value).ok().filter(|value| value.is_number() || value.is_boolean()));
        // The name as it stands, whatever dots it has.
        let field = Field::Attribute(format!("{KIND}.{}", AttributePath::top_level(name).pointer()));
        parts.push(is(field, Test::EqualsOneOf(forms)));
    }
    if parts.len() > PREDICATES_MAX {
        return Err(FilterError::new(0, format!("more than {PREDICATES_MAX} conditions")).into());
    }
    Ok(Filter { root: Some(Expr::And(parts)) })
}

impl Api {
    pub(super) async fn search_users(&self, call: &Call<'_>) -> Result<Answer, Problem> {
        self.users_of(call, &KNOWN).await
    }

    pub(super) async fn users(&self, call: &Call<'_>) -> Result<Answer, Problem> {
        self.users_of(call, &LISTED).await
    }

    async fn users_of(&self, call: &Call<'_>, known: &[&'static str]) -> Result<Answer, Problem> {
        let (question, params) = Question::parse(call.query, known)?;
        let page = self.user_page(call, &question).await?;
        let has_more = page.contexts.len() == question.limit && page.next.is_some();
        let mut links = json!({"self": Link::json(href(call, &params, None))});
        if let Some(last) = page.contexts.last().filter(|_| has_more) {
            let token = search_after(question.sort, last);
            links["next"] = json!(Link::json(href(call, &params, Some(&token))));
        }
        let is_partial = page.is_partial;
        let items = page.contexts.iter().map(|user| record(call.environment, user, &question)).collect::<Vec<_>>();
        let answer = json!({"totalCount": saturated(page.total), "items": items, "_links": links});
        Ok(Answer::ok(&answer).partial_if(is_partial))
    }

    async fn user_page(&self, call: &Call<'_>, question: &Question) -> Result<SearchPage, Problem> {
        let (limit, offset, seen_after) = (question.limit, question.offset, question.seen_after);
        let request = SearchRequest {
            environment: call.environment.clone(),
            filter: question.filter.clone(),
            sort: question.sort,
            limit: limit + offset,
            after: question.after.clone(),
        };
        let mut page = self.blocking(call.lacks, move |asker| asker.search_since(&request, seen_after)).await?;
        page.contexts.drain(..offset.min(page.contexts.len()));
        Ok(page)
    }

    pub(super) async fn user(&self, call: &Call<'_>, key: &str) -> Result<Answer, Problem> {
        let user = self.find_user(call, key).await?;
        Ok(Answer::ok(&with_ids(user_record(call.environment, &user), call.environment)))
    }

    pub(super) async fn delete_user(&self, call: &Call<'_>, key: &str) -> Result<Answer, Problem> {
        self.find_user(call, key).await?;
        self.forget(call.environment, &[Wish::context(KIND, key)]).await?;
        Ok(Answer::no_content())
    }

    async fn find_user(&self, call: &Call<'_>, key: &str) -> Result<FoundContext, Problem> {
        let (environment, key) = (call.environment.clone(), key.to_owned());
        let versions = self.blocking(call.lacks, move |asker| asker.versions(&environment, KIND, &key)).await?;
        versions.into_iter().next().ok_or_else(|| call.unless_lacking(Problem::not_found("there is no such user")))
    }
}

fn href(call: &Call<'_>, params: &HashMap<&'static str, String>, search_after: Option<&str>) -> String {
    let given = |name: &'static str| params.get(name).map(|value| (name, value.as_str()));
    let is_of_this_page = |name: &&'static str| search_after.is_none() || !matches!(*name, "offset" | "searchAfter");
    let mut parameters: Vec<(&str, &str)> = KNOWN.into_iter().filter(is_of_this_page).filter_map(given).collect();
    parameters.extend(search_after.map(|token| ("searchAfter", token)));
    if parameters.is_empty() { call.path.to_owned() } else { format!("{}?{}", call.path, query_string(&parameters)) }
}

fn record(environment: &Environment, user: &FoundContext, question: &Question) -> Value {
    let mut record = with_ids(user_record(environment, user), environment);
    if question.sort_name.is_some() {
        record["sortValue"] = match question.sort {
            Sort::KindKey | Sort::KeyDescending => user.key.as_str().into(),
            Sort::OldestFirst | Sort::NewestFirst => user.last_seen.as_millis().into(),
        };
    }
    record
}

fn with_ids(mut record: Value, environment: &Environment) -> Value {
    record["environmentId"] = environment.id().into();
    record
}

fn user_record(environment: &Environment, user: &FoundContext) -> Value {
    let (project, key) = (path_segment(&environment.project), path_segment(&environment.key));
    let place = format!("{project}/{key}/{}", path_segment(&user.key));
    let mut record = json!({
        "user": user_of(user),
        "_links": {
            "self": Link::json(format!("/api/v2/users/{place}")),
            "site": Link::html(format!("/{project}/{key}/contexts/{KIND}/{}", path_segment(&user.key))),
        },
    });
    if let Some(last_ping) = rfc3339(user.last_seen) {
        record["lastPing"] = last_ping.into();
    }
    record
}

/// The context in the shape of a user.
fn user_of(user: &FoundContext) -> Value {
    let context: Map<String, Value> = serde_json::from_str(user.context.get()).unwrap_or_default();
    let (mut shaped, mut custom) = (Map::new(), Map::new());
    shaped.insert("key".into(), user.key.as_str().into());
    for (name, value) in context {
        match name.as_str() {
            "kind" | "key" => {}
            "_meta" => {
                let paths = value["redactedAttributes"].as_array().into_iter().flatten();
                let names: Vec<Value> = paths.filter_map(Value::as_str).map(|path| plain_name(path).into()).collect();
                if !names.is_empty() {
                    shaped.insert("privateAttrs".into(), names.into());
                }
            }
            "anonymous" if value.is_boolean() => {
                shaped.insert(name, value);
            }
            // What is no text would break clients where they expect one.
            built_in if BUILT_IN.contains(&built_in) && value.is_string() => {
                shaped.insert(name, value);
            }
            _ => {
                custom.insert(name, value);
            }
        }
    }
    if !custom.is_empty() {
        shaped.insert("custom".into(), custom.into());
    }
    Value::Object(shaped)
}

/// A pointer to a top-level attribute as its name, any other as it is.
fn plain_name(pointer: &str) -> String {
    match pointer.strip_prefix('/') {
        Some(name) if !name.contains('/') => name.replace("~1", "/").replace("~0", "~"),
        _ => pointer.to_owned(),
    }
}
