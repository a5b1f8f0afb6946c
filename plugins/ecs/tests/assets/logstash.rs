//! Checks that the Logstash pipeline is valid, and that Logstash adds nothing to a document. The
//! names of settings are from the documentation of the input `http` 3.10 and the output
//! `elasticsearch` 12.

const HTTP: &[&str] = &[
    "id",
    "host",
    "port",
    "ssl_enabled",
    "ssl_certificate",
    "ssl_key",
    "ssl_client_authentication",
    "ssl_certificate_authorities",
    "ecs_compatibility",
    "remote_host_target_field",
    "request_headers_target_field",
    "additional_codecs",
    "codec",
];

const ELASTICSEARCH: &[&str] = &[
    "id",
    "hosts",
    "ssl_certificate_authorities",
    "api_key",
    "data_stream",
    "action",
    "index",
    "document_id",
    "manage_template",
    "ilm_enabled",
    "silence_errors_in_log",
];

/// Words, quoted texts and punctuation, without comments.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = vec![];
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '"' => rest[1..].find('"').expect("a text ends") + 2,
            _ if rest.starts_with("=>") => 2,
            _ if first.is_alphanumeric() => rest
                .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
                .unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        if first != '#' {
            tokens.push(rest[..length].to_owned());
        }
        rest = rest[length..].trim_start();
    }
    tokens
}

/// The settings of each plugin of a name: name and value.
fn plugins(name: &str) -> Vec<Vec<(String, String)>> {
    let tokens = tokens(&crate::asset("logstash.conf"));
    let begins = tokens
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| pair[0] == name && pair[1] == "{")
        .map(|(at, _)| at + 2);
    begins.map(|at| settings(&tokens[at..])).collect()
}

fn settings(tokens: &[String]) -> Vec<(String, String)> {
    let mut settings: Vec<(String, String)> = vec![];
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "}" if depth == 0 => break,
            "{" | "[" => depth += 1,
            "}" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 && tokens.get(at + 1).is_some_and(|next| next == "=>") {
            settings.push((token.clone(), String::new()));
        } else if let Some((_, value)) = settings.last_mut().filter(|_| token != "=>" || depth > 0)
        {
            value.push_str(token);
        }
    }
    settings
}

fn value<'a>(settings: &'a [(String, String)], name: &str) -> &'a str {
    settings
        .iter()
        .find(|(known, _)| known == name)
        .map_or("", |(_, value)| value)
}

#[test]
fn the_pipeline_has_only_settings_that_logstash_knows() {
    let tokens = tokens(&crate::asset("logstash.conf"));
    let count = |mark: &str| tokens.iter().filter(|token| *token == mark).count();
    assert_eq!((count("{"), count("[")), (count("}"), count("]")));
    let sections: Vec<usize> = ["input", "filter", "output"]
        .map(|name| tokens.iter().position(|token| token == name).unwrap())
        .to_vec();
    assert!(sections.is_sorted() && sections[0] == 0);
    for (name, known, expected) in [("http", HTTP, 1), ("elasticsearch", ELASTICSEARCH, 2)] {
        let plugins = plugins(name);
        assert_eq!(plugins.len(), expected, "{name}");
        for (setting, value) in plugins.iter().flatten() {
            assert!(known.contains(&setting.as_str()), "`{setting}` of {name}");
            assert!(!value.is_empty(), "`{setting}` of {name} has no value");
        }
    }
}

#[test]
fn logstash_adds_nothing_to_a_document() {
    let [http]: [_; 1] = plugins("http").try_into().unwrap();
    assert_eq!(value(&http, "ecs_compatibility"), r#""disabled""#);
    assert_eq!(
        value(&http, "codec"),
        r#"json{ecs_compatibility=>"disabled"}"#,
        "it would write `event.original`"
    );
    assert_eq!(
        value(&http, "additional_codecs"),
        "{}",
        "only the codec above reads JSON"
    );
    for field in ["remote_host_target_field", "request_headers_target_field"] {
        assert!(value(&http, field).starts_with("\"[@metadata]["), "{field}");
    }
    let [mutate]: [_; 1] = plugins("mutate").try_into().unwrap();
    assert_eq!(value(&mutate, "remove_field"), r#"["@version","time"]"#);
}

#[test]
fn documents_are_created_once_in_the_data_stream_of_the_template() {
    let pattern = crate::json("index-template.json")["index_patterns"][0]
        .as_str()
        .unwrap()
        .to_owned();
    let outputs = plugins("elasticsearch");
    for output in &outputs {
        let index = value(output, "index").trim_matches('"');
        assert!(
            index.starts_with(pattern.trim_end_matches('*')) && index.len() > pattern.len(),
            "{index} does not match {pattern}"
        );
        assert_eq!(
            value(output, "action"),
            r#""create""#,
            "a data stream accepts nothing else"
        );
        assert_eq!(
            value(output, "data_stream"),
            r#""false""#,
            "`true` refuses `index` and `document_id`"
        );
        assert_eq!(
            (
                value(output, "manage_template"),
                value(output, "ilm_enabled")
            ),
            ("false", "false"),
            "template and policy are Lockgate's"
        );
    }
    let ids: Vec<&str> = outputs
        .iter()
        .map(|output| value(output, "document_id"))
        .collect();
    assert_eq!(
        ids,
        [r#""%{[event][id]}""#, ""],
        "an event without an id must not share one with others"
    );
    assert!(crate::asset("logstash.conf").contains("if [event][id] {"));
}

/// Names that one file defines and another one uses.
#[test]
fn template_and_policy_refer_to_each_other() {
    let readme = crate::asset("README.md");
    let template = crate::json("index-template.json");
    let puts = |name: &str, file: &str| {
        assert!(
            readme.contains(&format!("put {name} {file}")),
            "README.md installs {file} as {name}"
        )
    };
    let settings = crate::json("component-settings.json")["template"]["settings"]["index"].clone();
    puts(
        &format!(
            "_ilm/policy/{}",
            settings["lifecycle"]["name"].as_str().unwrap()
        ),
        "ilm-policy.json",
    );
    let parts: Vec<&str> = template["composed_of"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part.as_str().unwrap())
        .collect();
    puts(
        &format!("_component_template/{}", parts[0]),
        "component-mappings.json",
    );
    puts(
        &format!("_component_template/{}", parts[1]),
        "component-settings.json",
    );
    puts(
        "_index_template/lockgate-teleport.audit",
        "index-template.json",
    );
    assert_eq!(
        template["ignore_missing_component_templates"][0], parts[2],
        "the operators' component is last, and optional"
    );
    assert!(
        template["data_stream"].is_object() && template["priority"].as_u64().unwrap() > 200,
        "above Elastic's own templates"
    );
    let fields = crate::template::Template::read().fields;
    for field in settings["query"]["default_field"].as_array().unwrap() {
        assert!(fields.contains_key(field.as_str().unwrap()), "{field}");
    }
}
