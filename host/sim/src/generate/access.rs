//! Events about logins, certificates, access requests, users, roles and joins.

use super::event_writer::EventWriter;
use super::lists::{ENVS, ERRORS, REASONS, ROLES, TEAMS, USER_AGENTS, USERS};
use super::organisation::Organisation;
use super::text::ShortText;
use super::wire::Fields;

/// Go's zero time, which Teleport writes for things that never expire.
const NEVER: &str = "0001-01-01T00:00:00Z";

impl EventWriter {
    pub(crate) fn failed_login(
        &mut self,
        organisation: &Organisation,
        user: &str,
        out: &mut Vec<u8>,
    ) {
        let mut fields = self.begin(organisation, out, "user.login", "T1000W", 0);
        fields.text("user", user);
        fields.text("method", "local");
        fields.flag("success", false);
        fields.text("error", self.rng.pick(&ERRORS));
        fields.text("message", "invalid username, password or second factor");
        fields.text("addr.remote", self.address());
        fields.text("user_agent", self.rng.pick(&USER_AGENTS));
    }

    pub(crate) fn login(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let person = self.person(organisation);
        if self.rng.chance(0.06) {
            self.failed_login(organisation, person.name, out);
            return;
        }
        let sso = self.rng.chance(0.5);
        let mut fields = self.begin(
            organisation,
            out,
            "user.login",
            if sso { "T1001I" } else { "T1000I" },
            0,
        );
        self.who(&mut fields, person, true);
        fields.text(
            "method",
            if sso {
                self.rng.pick(&["oidc", "saml", "github"])
            } else {
                "local"
            },
        );
        fields.flag("success", true);
        fields.text("addr.remote", self.address());
        fields.text("user_agent", self.rng.pick(&USER_AGENTS));
        if !sso {
            fields.object("mfa_device", |device| {
                device.text(
                    "mfa_device_name",
                    self.rng.pick(&["yubikey", "touch-id", "usb-c"]),
                );
                device.text("mfa_device_uuid", self.rng.uuid());
                device.text("mfa_device_type", "WebAuthn");
            });
            fields.text("required_private_key_policy", "none");
            return;
        }
        fields.object("attributes", |claims| self.claims(claims, person.name));
        match self.rng.chance(0.3) {
            true => fields.texts("applied_login_rules", ["group-mapping"]),
            false => fields.null("applied_login_rules"),
        }
    }

    fn claims(&mut self, claims: &mut Fields<'_>, user: &str) {
        claims.texts("amr", ["pwd", "mfa"]);
        claims.text("aud", format!("0oa{}", self.rng.hex(17).as_str()));
        claims.text("email", user);
        claims.flag("email_verified", true);
        claims.number("exp", (1_767_600_000 + self.rng.below(1_000_000)) as f64);
        let teams = self.rng.sample(&TEAMS, 2);
        claims.texts("groups", ["Everyone", teams[0], teams[1]]);
        claims.text("iss", "https://idp.example.com");
        claims.text("jti", format!("ID.{}", self.rng.hex(40).as_str()));
        claims.text("sub", format!("00u{}", self.rng.hex(17).as_str()));
        claims.number("ver", 1.0);
    }

    pub(crate) fn authentication_failure(
        &mut self,
        organisation: &Organisation,
        out: &mut Vec<u8>,
    ) {
        let mut fields = self.begin(organisation, out, "auth", "T3007W", 0);
        fields.text("user", self.user());
        fields.flag("success", false);
        fields.text("error", self.rng.pick(&ERRORS));
        fields.text("addr.local", self.address());
        fields.text("addr.remote", self.address());
    }

    pub(crate) fn certificate(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let person = self.person(organisation);
        let mut fields = self.begin(organisation, out, "cert.create", "TC000I", 0);
        fields.text("cert_type", "user");
        fields.object("identity", |identity| {
            identity.text("user", person.name);
            identity.texts("roles", &person.roles);
            identity.texts(
                "logins",
                [
                    person.logins[0],
                    person.logins[1],
                    "-teleport-internal-join",
                ],
            );
            let hours = self.rng.range(1, 12);
            identity.text("expires", self.later(hours));
            identity.text("route_to_cluster", &organisation.cluster);
            identity.object("traits", |traits| traits.entries(&person.traits));
            identity.text("teleport_cluster", &organisation.cluster);
            identity.text("client_ip", self.ip());
            match self.rng.chance(0.5) {
                true => identity.text("prev_identity_expires", NEVER),
                false => identity.text("prev_identity_expires", self.later(1)),
            }
            identity.text(
                "private_key_policy",
                self.rng.pick(&["none", "none", "hardware_key_touch"]),
            );
            self.certificate_routes(organisation, identity, person.name);
        });
        fields.text("user_agent", self.rng.pick(&USER_AGENTS));
        fields.object("certificate_authority", |authority| {
            authority.text("type", "user");
            authority.text("domain", &organisation.cluster);
            authority.text("subject_key_id", self.rng.hex(40).as_str().to_uppercase());
        });
    }

    fn certificate_routes(
        &mut self,
        organisation: &Organisation,
        identity: &mut Fields<'_>,
        user: &str,
    ) {
        if self.rng.chance(0.3) {
            identity.text(
                "kubernetes_cluster",
                format!("eks-{}", self.rng.pick(&ENVS)),
            );
            identity.texts("kubernetes_groups", ["viewers", "developers"]);
            identity.texts("kubernetes_users", [user]);
        }
        if self.rng.chance(0.2) {
            let database = self.rng.one(&organisation.databases);
            identity.object("route_to_database", |route| {
                route.text("service_name", &database.name);
                route.text("protocol", database.protocol);
                route.text("username", "reader");
                route.text("database", "app");
            });
            identity.texts("database_names", ["app", "postgres"]);
            identity.texts("database_users", ["reader", "writer"]);
        }
        if self.rng.chance(0.1) {
            identity.texts("access_requests", [self.rng.uuid()]);
            identity.list("allowed_resource_ids", |list| {
                list.object(|resource| {
                    resource.text("cluster", &organisation.cluster);
                    resource.text("kind", "node");
                    resource.text("name", self.rng.uuid());
                });
            });
        }
        if self.rng.chance(0.15) {
            identity.flag("disallow_reissue", true);
            identity.texts("usage", ["usage:kube"]);
        }
    }

    pub(crate) fn device_authenticate(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let person = self.person(organisation);
        let mut fields = self.begin(organisation, out, "device.authenticate", "TV006I", 0);
        fields.object("device", |device| device.entries(&person.device));
        fields.flag("success", true);
        fields.text("user", person.name);
        fields.number("user_kind", 1.0);
    }

    pub(crate) fn request_create(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields = self.by_somebody(organisation, out, "access_request.create", "T5000I");
        fields.text("id", self.rng.uuid());
        let count = self.rng.range(1, 4) as usize;
        fields.texts("roles", self.rng.sample(&ROLES, count));
        fields.text("state", "PENDING");
        fields.text("reason", self.rng.pick(&REASONS));
        fields.text("expires", self.later(8));
        fields.text("max_duration", self.later(8));
        let count = self.rng.below(4);
        fields.list("resource_ids", |list| {
            for _ in 0..count {
                list.object(|resource| {
                    resource.text("cluster", &organisation.cluster);
                    resource.text("kind", "node");
                    resource.text("name", self.rng.one(&organisation.nodes).id);
                });
            }
        });
        fields.texts("suggested_reviewers", self.rng.sample(&USERS, 2));
    }

    pub(crate) fn request_review(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields = self.by_somebody(organisation, out, "access_request.review", "T5002I");
        fields.text("id", self.rng.uuid());
        fields.text(
            "proposed_state",
            self.rng.pick(&["APPROVED", "APPROVED", "DENIED"]),
        );
        fields.text("reviewer", self.user());
        fields.text("reason", self.rng.pick(&REASONS));
        fields.text("state", self.rng.pick(&["PENDING", "APPROVED", "DENIED"]));
        fields.text("updated_by", self.user());
    }

    pub(crate) fn request_search(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields = self.begin(organisation, out, "access_request.search", "T5004I", 0);
        fields.text("namespace", "default");
        fields.text("resource_type", "db_server");
        fields.list("search_as_roles", |list| {
            list.text("admin");
            (1..10).for_each(|number| list.text(format!("really-long-role-name-{number}")));
        });
        fields.text("user", self.user());
        fields.object("labels", |labels| labels.text("env", "prod"));
    }

    pub(crate) fn user_create(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        self.user_change(organisation, out, "user.create", "T1002I");
    }

    pub(crate) fn user_update(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        self.user_change(organisation, out, "user.update", "T1003I");
    }

    fn user_change(
        &mut self,
        organisation: &Organisation,
        out: &mut Vec<u8>,
        event: &'static str,
        code: &str,
    ) {
        let mut fields = self.by_somebody(organisation, out, event, code);
        fields.text(
            "name",
            format!("user-{}@example.com", self.rng.hex(6).as_str()),
        );
        fields.texts("roles", self.rng.sample(&ROLES, 3));
        fields.text("connector", self.rng.pick(&["local", "okta"]));
        fields.text("expires", NEVER);
    }

    pub(crate) fn user_delete(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields = self.by_somebody(organisation, out, "user.delete", "T1004I");
        fields.text(
            "name",
            format!("user-{}@example.com", self.rng.hex(6).as_str()),
        );
    }

    pub(crate) fn role_create(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields = self.by_somebody(organisation, out, "role.created", "T9000I");
        fields.text("name", format!("role-{}", self.rng.hex(4).as_str()));
        fields.text("expires", NEVER);
    }

    pub(crate) fn lock_create(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields = self.by_somebody(organisation, out, "lock.created", "TLK00I");
        fields.text("name", self.rng.uuid());
        fields.text("expires", NEVER);
        fields.object("target", |target| target.text("user", self.user()));
        fields.object("lock", |lock| {
            lock.object("target", |target| target.text("user", "mallory"));
            lock.text("message", "suspicious: <script>alert(1)</script> & co");
        });
    }

    pub(crate) fn instance_join(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let node = self.rng.one(&organisation.nodes);
        let mut fields = self.begin(organisation, out, "instance.join", "TJ002I", 0);
        fields.flag("success", true);
        fields.text("method", "iam");
        fields.text("node_name", &node.host);
        fields.text("host_id", node.id);
        fields.text("role", "Node");
        fields.text(
            "token_name",
            format!("************************{}", self.rng.hex(8).as_str()),
        );
        fields.text("addr.remote", self.address());
        fields.object("attributes", |attributes| {
            attributes.text("account", "123456789012");
            let instance = self.rng.hex(17);
            attributes.text(
                "arn",
                format!(
                    "arn:aws:sts::123456789012:assumed-role/teleport/i-{}",
                    instance.as_str()
                ),
            );
        });
    }

    pub(crate) fn bot_join(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields = self.begin(organisation, out, "bot.join", "TJ001I", 0);
        fields.flag("success", true);
        fields.text("bot_name", "ci-deploy");
        fields.text("method", "github");
        fields.text("token_name", "github-bot");
        fields.text("addr.remote", self.address());
        fields.text("bot_instance_id", self.rng.uuid());
        fields.object("attributes", |attributes| {
            for (key, value) in [
                ("actor", "example-dev"),
                ("base_ref", ""),
                ("event_name", "push"),
                ("head_ref", ""),
                ("ref", "refs/heads/main"),
                ("ref_type", "branch"),
                ("repository", "example/app"),
                ("repository_owner", "example"),
                ("run_number", "73"),
                ("sub", "repo:example/app:ref:refs/heads/main"),
                ("workflow", "Deploy"),
            ] {
                attributes.text(key, value);
            }
            attributes.text("actor_id", self.rng.below(100_000_000).to_string());
            attributes.text("run_id", self.rng.below(10_000_000_000).to_string());
            attributes.text("sha", self.rng.hex(40));
        });
    }

    pub(crate) fn svid_issue(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields = self.begin(organisation, out, "spiffe.svid.issued", "TSPIFFE000I", 0);
        fields.text("addr.remote", self.address());
        fields.null("dns_sans");
        fields.null("ip_sans");
        fields.text("hint", "");
        let mut serial = ShortText::default();
        for byte in 0..16 {
            serial.push(if byte == 0 { b"" } else { b":" });
            serial.push_hex(self.rng.bits(), 2);
        }
        fields.text("serial_number", serial);
        fields.text(
            "spiffe_id",
            format!(
                "spiffe://{}/svc/{}",
                organisation.cluster,
                self.rng.pick(&TEAMS)
            ),
        );
        fields.text("svid_type", "x509");
        fields.text("user", "bot-ci-deploy");
        fields.number("user_kind", 2.0);
    }

    pub(crate) fn desktop_start(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields =
            self.by_somebody(organisation, out, "windows.desktop.session.start", "TDP00I");
        let mut address = self.ip();
        address.push(b":3389");
        fields.text("addr.remote", address);
        fields.text("desktop_addr", address);
        fields.text("desktop_name", format!("win-{}", self.rng.hex(6).as_str()));
        fields.text("proto", "tdp");
        fields.text("sid", self.rng.uuid());
        fields.flag("success", true);
        fields.text("windows_desktop_service", self.rng.uuid());
        fields.text("windows_domain", "corp.example.com");
        fields.text("windows_user", "Administrator");
        fields.object("desktop_labels", |labels| {
            labels.text("env", "prod");
            labels.text("teleport.dev/ou", "CN=Computers,DC=corp,DC=example,DC=com");
        });
    }

    fn by_somebody<'o>(
        &mut self,
        organisation: &Organisation,
        out: &'o mut Vec<u8>,
        event: &'static str,
        code: &str,
    ) -> Fields<'o> {
        let person = self.person(organisation);
        let mut fields = self.begin(organisation, out, event, code, 0);
        self.who(&mut fields, person, true);
        fields
    }
}
