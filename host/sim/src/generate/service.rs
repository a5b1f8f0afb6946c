//! Kubernetes, databases and applications.

use super::event_writer::EventWriter;
use super::lists::{ENVS, ERRORS, KUBE_PATHS, NAMESPACES, REGIONS, SQL};
use super::organisation::Organisation;
use super::session::{ApplicationSession, DatabaseSession};
use super::text::ShortText;
use super::wire::Fields;

const DATABASE_OPEN_MAX: usize = 200;
const APPLICATION_OPEN_MAX: usize = 100;

impl EventWriter {
    pub(crate) fn kube_request(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let person = self.person(organisation);
        let namespace = self.rng.pick(&NAMESPACES);
        let mut pod = ShortText::default();
        pod.push(self.rng.pick(&["api", "worker", "web"]).as_bytes());
        for digits in [9, 5] {
            pod.push(b"-");
            pod.push_hex(self.rng.bits(), digits);
        }
        let mut fields = self.begin(organisation, out, "kube.request", "T3009I", 0);
        self.who(&mut fields, person, true);
        let mut local = ShortText::default();
        local.push(b"10.1.");
        local.push_number(self.rng.below(256));
        local.push(b".7:3026");
        fields.text("addr.local", local);
        fields.text("addr.remote", self.address());
        fields.text("proto", "kube");
        fields.text("namespace", "default");
        fields.text("server_id", self.rng.one(&organisation.nodes).id);
        let (before, between, after) = self.rng.pick(&KUBE_PATHS);
        let (name, after) = after.map_or(("", ""), |after| (pod.as_str(), after));
        fields.text(
            "request_path",
            [before, namespace, between, name, after].concat(),
        );
        fields.text(
            "verb",
            self.rng
                .pick(&["GET", "GET", "GET", "POST", "DELETE", "PATCH"]),
        );
        fields.text("resource_api_group", self.rng.pick(&["core/v1", "apps/v1"]));
        fields.text("resource_namespace", namespace);
        fields.text(
            "resource_kind",
            self.rng.pick(&["pods", "deployments", "secrets"]),
        );
        fields.text("resource_name", pod);
        fields.number(
            "response_code",
            self.rng
                .pick(&[200.0, 200.0, 200.0, 200.0, 201.0, 403.0, 404.0]),
        );
        fields.text(
            "kubernetes_cluster",
            ["eks-", self.rng.pick(&ENVS)].concat(),
        );
        fields.texts("kubernetes_users", [person.name]);
        fields.texts("kubernetes_groups", ["developers", "system:authenticated"]);
        fields.object("kubernetes_labels", |labels| {
            labels.text("env", self.rng.pick(&ENVS));
            labels.text("region", self.rng.pick(&REGIONS));
            labels.text("teleport.dev/origin", "cloud");
        });
        fields.text("login", person.name);
    }

    // === databases ===

    pub(crate) fn database_start(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut session = DatabaseSession::new(organisation, self.position);
        let mut fields = self.database(
            organisation,
            out,
            &mut session,
            "db.session.start",
            "TDB00I",
        );
        fields.flag("success", true);
        fields.number("postgres_pid", self.rng.below(1 << 31) as f64);
        fields.text("addr.remote", self.address());
        fields.text("user_agent", "psql");
        fields.text("with_mfa", "");
        fields.text("private_key_policy", "none");
        if self.databases.len() >= DATABASE_OPEN_MAX {
            self.databases.swap_remove(0);
        }
        self.databases.push(session);
    }

    pub(crate) fn database_query(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields = self.in_database(organisation, out, "db.session.query", "TDB02I");
        if self.rng.chance(0.05) {
            let rows = self.rng.range(20, 60);
            let mut query = String::from("INSERT INTO t (a, b) VALUES ");
            for row in 0..rows {
                let comma = if row == 0 { "" } else { ", " };
                query.push_str(&format!(
                    "{comma}({}, '{}')",
                    self.rng.below(1_000_000_000),
                    self.rng.hex(12).as_str()
                ));
            }
            fields.text("db_query", query);
            fields.null("db_query_parameters");
        } else {
            let query = self.rng.pick(&SQL);
            fields.text("db_query", query);
            match query.contains("$1") {
                true => fields.texts(
                    "db_query_parameters",
                    [self.rng.below(1_000_000).to_string()],
                ),
                false => fields.null("db_query_parameters"),
            }
        }
        fields.flag("success", true);
        fields.number("affected_records", self.rng.below(1000) as f64);
    }

    pub(crate) fn database_failure(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields = self.in_database(organisation, out, "db.session.query.failed", "TDB02W");
        fields.text("db_query", self.rng.pick(&SQL));
        fields.flag("success", false);
        fields.text("error", self.rng.pick(&ERRORS));
    }

    pub(crate) fn database_end(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        if self.databases.len() < 2 {
            return self.database_start(organisation, out);
        }
        let at = self.rng.below(self.databases.len() as u64) as usize;
        let mut session = self.databases.swap_remove(at);
        self.database(organisation, out, &mut session, "db.session.end", "TDB01I");
    }

    fn in_database<'o>(
        &mut self,
        organisation: &Organisation,
        out: &'o mut Vec<u8>,
        event: &'static str,
        code: &str,
    ) -> Fields<'o> {
        let at = self.rng.below(self.databases.len() as u64) as usize;
        let mut session = self.databases.swap_remove(at);
        let fields = self.database(organisation, out, &mut session, event, code);
        self.databases.push(session);
        fields
    }

    fn database<'o>(
        &mut self,
        organisation: &Organisation,
        out: &'o mut Vec<u8>,
        session: &mut DatabaseSession,
        event: &'static str,
        code: &str,
    ) -> Fields<'o> {
        let mut fields = self.begin(organisation, out, event, code, session.index);
        session.index += 1;
        self.who(&mut fields, session.person(organisation), true);
        fields.text("sid", session.id);
        fields.text("server_id", session.server(organisation));
        fields.entries(&session.database(organisation).entries);
        fields
    }

    // === applications ===

    pub(crate) fn application_start(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut session = ApplicationSession::new(organisation, self.position);
        let mut fields = self.application(
            organisation,
            out,
            &mut session,
            "app.session.start",
            "T2007I",
        );
        fields.text("addr.remote", session.remote);
        fields.text(
            "public_addr",
            [session.application, ".", &organisation.cluster].concat(),
        );
        if self.applications.len() >= APPLICATION_OPEN_MAX {
            self.applications.swap_remove(0);
        }
        self.applications.push(session);
    }

    pub(crate) fn application_request(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let (mut fields, chunk) =
            self.in_application(organisation, out, "app.session.request", "T2009I", false);
        fields.number(
            "status_code",
            self.rng
                .pick(&[200.0, 200.0, 200.0, 204.0, 302.0, 404.0, 500.0]),
        );
        fields.text("method", self.rng.pick(&["GET", "GET", "POST"]));
        match self.rng.below(5) {
            0 => fields.text("path", "/"),
            1 => fields.text(
                "path",
                ["/api/dashboards/uid/", self.rng.hex(9).as_str()].concat(),
            ),
            2 => fields.text("path", "/api/ds/query"),
            3 => fields.text("path", "/login"),
            _ => fields.text(
                "path",
                ["/static/", self.rng.hex(20).as_str(), ".js"].concat(),
            ),
        }
        fields.text(
            "raw_query",
            self.rng.pick(&[
                "",
                "",
                "from=now-6h&to=now&var-ns=payments",
                "q=%C3%A9t%C3%A9&page=2",
            ]),
        );
        fields.text("session_chunk_id", chunk);
    }

    pub(crate) fn application_chunk(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let (mut fields, chunk) =
            self.in_application(organisation, out, "app.session.chunk", "T2008I", true);
        fields.text("session_chunk_id", chunk);
    }

    pub(crate) fn application_end(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        if self.applications.len() < 2 {
            return self.application_start(organisation, out);
        }
        let at = self.rng.below(self.applications.len() as u64) as usize;
        let mut session = self.applications.swap_remove(at);
        self.application(organisation, out, &mut session, "app.session.end", "T2011I");
    }

    /// An event of some open session, and the session's chunk id (a new one from now on, if
    /// `renew`).
    fn in_application<'o>(
        &mut self,
        organisation: &Organisation,
        out: &'o mut Vec<u8>,
        event: &'static str,
        code: &str,
        renew: bool,
    ) -> (Fields<'o>, ShortText) {
        let at = self.rng.below(self.applications.len() as u64) as usize;
        let mut session = self.applications.swap_remove(at);
        let fields = self.application(organisation, out, &mut session, event, code);
        if renew {
            session.chunk = self.rng.uuid();
        }
        let chunk = session.chunk;
        self.applications.push(session);
        (fields, chunk)
    }

    fn application<'o>(
        &mut self,
        organisation: &Organisation,
        out: &'o mut Vec<u8>,
        session: &mut ApplicationSession,
        event: &'static str,
        code: &str,
    ) -> Fields<'o> {
        let mut fields = self.begin(organisation, out, event, code, session.index);
        session.index += 1;
        self.who(&mut fields, session.person(organisation), true);
        fields.text("sid", session.id);
        fields.text("namespace", "default");
        fields.text("server_id", session.server(organisation));
        fields.text("app_name", session.application);
        fields.text("app_uri", "http://127.0.0.1:3000");
        fields.text(
            "app_public_addr",
            [session.application, ".", &organisation.cluster].concat(),
        );
        fields.object("app_labels", |labels| {
            labels.text("env", "prod");
            labels.text("teleport.dev/origin", "config-file");
        });
        fields
    }
}
