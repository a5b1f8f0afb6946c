//! Events of SSH sessions.

use super::event_writer::{EventWriter, FollowUp};
use super::lists::{ENVS, NAMESPACES};
use super::organisation::Organisation;
use super::session::SshSession;
use super::text::ShortText;
use super::wire::Fields;

/// Most SSH sessions open at the same time. Beyond it, the oldest is dropped without an end.
const OPEN_MAX: usize = 200;

/// How an event differs from the other events of its session.
#[derive(Clone, Copy, Default)]
struct Overrides {
    /// The participant who did it, if not the session's user.
    user: Option<&'static str>,
    /// Teleport's `ei`, if it is not the session's next.
    index: Option<u32>,
    kubernetes: bool,
    without_server: bool,
}

impl EventWriter {
    pub(crate) fn ssh_start(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut session = SshSession::new(organisation, self.position, self.time);
        let mut fields = self.ssh(organisation, out, &mut session, "session.start", "T2000I");
        let size = format!(
            "{}:{}",
            self.rng.pick(&[80, 120, 211]),
            self.rng.pick(&[25, 40, 58])
        );
        fields.text("size", size);
        fields.text("session_recording", "node");
        match self.rng.chance(0.4) {
            true => fields.text("with_mfa", self.rng.uuid()),
            false => fields.text("with_mfa", ""),
        }
        fields.text("private_key_policy", "none");
        match self.rng.chance(0.8) {
            true => fields.null("initial_command"),
            false => fields.texts("initial_command", self.command().split(' ')),
        }
        if self.ssh.len() >= OPEN_MAX {
            self.ssh.swap_remove(0);
        }
        self.ssh.push(session);
    }

    pub(crate) fn ssh_resize(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let overrides = Overrides {
            without_server: true,
            ..Overrides::default()
        };
        let mut fields = self.in_session(organisation, out, "resize", "T2002I", overrides);
        let size = format!("{}:{}", self.rng.range(60, 240), self.rng.range(20, 80));
        fields.text("size", size);
        fields.text("namespace", "default");
    }

    pub(crate) fn ssh_join(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let at = self.rng.below(self.ssh.len() as u64) as usize;
        let mut session = self.ssh.swap_remove(at);
        let user = self.user();
        if !session.participants.contains(&user) {
            session.participants.push(user);
        }
        self.ssh_with(
            organisation,
            out,
            &mut session,
            "session.join",
            "T2001I",
            Overrides {
                user: Some(user),
                ..Overrides::default()
            },
        );
        self.ssh.push(session);
    }

    pub(crate) fn ssh_data(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let overrides = Overrides {
            index: Some(2_147_483_646),
            ..Overrides::default()
        };
        let mut fields = self.in_session(organisation, out, "session.data", "T2006I", overrides);
        fields.number("tx", self.rng.below(1 << 34) as f64);
        fields.number("rx", self.rng.below(1 << 30) as f64);
    }

    pub(crate) fn ssh_command(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields = self.in_session(
            organisation,
            out,
            "session.command",
            "T4000I",
            Overrides::default(),
        );
        let mut words = self.command().split(' ');
        let program = words.next().unwrap_or_default();
        self.process(&mut fields, program);
        fields.number("ppid", self.rng.range(300, 4_194_304) as f64);
        fields.text("path", format!("/usr/bin/{program}"));
        fields.texts("argv", words);
        fields.number(
            "return_code",
            if self.rng.chance(0.9) {
                0.0
            } else {
                self.rng.pick(&[1.0, 2.0, 127.0])
            },
        );
    }

    pub(crate) fn ssh_network(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields = self.in_session(
            organisation,
            out,
            "session.network",
            "T4002I",
            Overrides::default(),
        );
        let program = self.rng.pick(&["curl", "ssh", "psql", "git"]);
        self.process(&mut fields, program);
        fields.text("src_addr", self.ip());
        fields.text("dst_addr", self.ip());
        fields.number("dst_port", self.rng.pick(&[22.0, 80.0, 443.0, 5432.0]));
        fields.number("version", 4.0);
        fields.number("action", self.rng.below(2) as f64);
        fields.number("operation", 0.0);
    }

    pub(crate) fn ssh_disk(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields = self.in_session(
            organisation,
            out,
            "session.disk",
            "T4001I",
            Overrides::default(),
        );
        let program = self.rng.pick(&["cat", "vim", "bash"]);
        self.process(&mut fields, program);
        let paths = [
            "/etc/passwd",
            "/etc/profile.d/",
            "/var/log/syslog",
            "/home/deploy/.ssh/authorized_keys",
        ];
        fields.text("path", self.rng.pick(&paths));
        fields.number("flags", 2_100_000.0);
        fields.number("return_code", 0.0);
    }

    fn process(&mut self, fields: &mut Fields<'_>, program: &str) {
        fields.number("pid", self.rng.range(300, 4_194_304) as f64);
        fields.text("program", program);
        fields.number(
            "cgroup_id",
            (4_294_967_296 + self.rng.below(100_000)) as f64,
        );
    }

    pub(crate) fn ssh_end(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        if self.ssh.len() < 2 {
            return self.ssh_start(organisation, out);
        }
        let at = self.rng.below(self.ssh.len() as u64) as usize;
        let mut session = self.ssh.swap_remove(at);
        let stop = self.time;
        let mut fields = self.ssh(organisation, out, &mut session, "session.end", "T2004I");
        fields.flag("enhanced_recording", self.rng.chance(0.5));
        fields.flag("interactive", self.rng.chance(0.8));
        fields.texts("participants", &session.participants);
        fields.text("session_recording", "node");
        fields.text(
            "session_start",
            ShortText::time_nanos(session.start, self.rng.below(1_000_000)),
        );
        fields.text(
            "session_stop",
            ShortText::time_nanos(stop, self.rng.below(1_000_000)),
        );
        self.follow_ups.push_back(FollowUp::Upload(session.clone()));
        if self.rng.chance(0.5) {
            self.follow_ups.push_back(FollowUp::Leave(session));
        }
    }

    pub(crate) fn ssh_upload(
        &mut self,
        organisation: &Organisation,
        session: &SshSession,
        out: &mut Vec<u8>,
    ) {
        let mut fields = self.begin(organisation, out, "session.upload", "T2005I", 2_147_483_647);
        let sid = session.id.as_str();
        fields.text("sid", sid);
        let version = self.rng.hex(32);
        fields.text(
            "url",
            format!(
                "s3://example-teleport-recordings/records/{sid}.tar?versionId={}",
                version.as_str()
            ),
        );
        fields.text(
            "user",
            format!(
                "{}.{}",
                session.node(organisation).id.as_str(),
                organisation.cluster
            ),
        );
        fields.number("user_kind", 3.0);
        fields.text("session_id", sid);
    }

    pub(crate) fn ssh_leave(
        &mut self,
        organisation: &Organisation,
        session: &mut SshSession,
        out: &mut Vec<u8>,
    ) {
        self.ssh(organisation, out, session, "session.leave", "T2003I");
    }

    pub(crate) fn exec(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let (fail, kubernetes) = (self.rng.chance(0.1), self.rng.chance(0.4));
        let code = if fail { "T3002E" } else { "T3002I" };
        let at = self.rng.below(self.ssh.len() as u64) as usize;
        let mut session = self.ssh.swap_remove(at);
        let mut fields = self.ssh_with(
            organisation,
            out,
            &mut session,
            "exec",
            code,
            Overrides {
                kubernetes,
                ..Overrides::default()
            },
        );
        fields.text("command", self.command());
        fields.text("exitCode", if fail { "1" } else { "0" });
        if fail {
            fields.text("exitError", "Process exited with status 1");
        }
        if kubernetes {
            fields.text(
                "kubernetes_cluster",
                format!("eks-{}", self.rng.pick(&ENVS)),
            );
            fields.texts("kubernetes_users", [session.person(organisation).name]);
            fields.texts("kubernetes_groups", ["developers"]);
            fields.text("kubernetes_pod_namespace", self.rng.pick(&NAMESPACES));
            fields.text(
                "kubernetes_pod_name",
                format!("api-{}", self.rng.hex(10).as_str()),
            );
            fields.text("kubernetes_container_name", "main");
            fields.text(
                "kubernetes_container_image",
                format!("registry.example.com/api:{}", self.rng.hex(12).as_str()),
            );
            fields.text(
                "kubernetes_node_name",
                &self.rng.one(&organisation.nodes).host,
            );
        }
        self.ssh.push(session);
    }

    pub(crate) fn scp(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let up = self.rng.chance(0.5);
        let at = self.rng.below(self.ssh.len() as u64) as usize;
        let mut session = self.ssh.swap_remove(at);
        let mut fields = self.ssh(
            organisation,
            out,
            &mut session,
            "scp",
            if up { "T3005I" } else { "T3004I" },
        );
        let path = match self.rng.below(4) {
            0 => "~/".to_owned(),
            1 => format!("/tmp/release-{}.tgz", self.rng.hex(8).as_str()),
            2 => "/var/tmp/d\u{fc}mp.sql".to_owned(),
            _ => "~/My Documents/a b.txt".to_owned(),
        };
        let (action, flag) = if up {
            ("upload", "t")
        } else {
            ("download", "f")
        };
        fields.text("action", action);
        fields.text("exitCode", "0");
        let remote = session.remote.as_str();
        fields.text(
            "command",
            format!("/usr/local/bin/teleport scp --remote-addr=\"{remote}\" --local-addr=\"10.0.0.1:3022\" -{flag} {path}"),
        );
        fields.text("path", path);
        self.ssh.push(session);
    }

    pub(crate) fn sftp(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let action = self.rng.pick(&[1u8, 2, 3, 4, 5, 9, 11]);
        let fail = self.rng.chance(0.08);
        let at = self.rng.below(self.ssh.len() as u64) as usize;
        let mut session = self.ssh.swap_remove(at);
        let code = format!("TS{action:03}{}", if fail { 'E' } else { 'I' });
        let mut fields = self.ssh(organisation, out, &mut session, "sftp", &code);
        fields.number("action", action.into());
        fields.text(
            "path",
            format!("/srv/data/{}.csv", self.rng.hex(6).as_str()),
        );
        fields.text("working_directory", format!("/home/{}", session.login));
        if action == 1 {
            fields.number("flags", 1.0);
        }
        if fail {
            fields.text("error", "permission denied");
        }
        self.ssh.push(session);
    }

    pub(crate) fn subsystem(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields = self.in_session(
            organisation,
            out,
            "subsystem",
            "T3001I",
            Overrides::default(),
        );
        fields.text("name", "sftp");
        fields.text("exitError", "");
    }

    pub(crate) fn client_disconnect(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields = self.in_session(
            organisation,
            out,
            "client.disconnect",
            "T3006I",
            Overrides::default(),
        );
        fields.text("reason", "client has been idle for 30m0s (limit 30m0s)");
    }

    pub(crate) fn recording_access(&mut self, organisation: &Organisation, out: &mut Vec<u8>) {
        let mut fields = self.begin(organisation, out, "session.recording.access", "T2012I", 0);
        let person = self.person(organisation);
        self.who(&mut fields, person, true);
        fields.text("sid", self.rng.uuid());
        fields.text("session_type", self.rng.pick(&["ssh", "k8s", "db"]));
        fields.text("format", "pty");
    }

    /// An event of a random open session.
    fn in_session<'o>(
        &mut self,
        organisation: &Organisation,
        out: &'o mut Vec<u8>,
        event: &'static str,
        code: &str,
        overrides: Overrides,
    ) -> Fields<'o> {
        let at = self.rng.below(self.ssh.len() as u64) as usize;
        let mut session = self.ssh.swap_remove(at);
        let fields = self.ssh_with(organisation, out, &mut session, event, code, overrides);
        self.ssh.push(session);
        fields
    }

    pub(crate) fn ssh<'o>(
        &mut self,
        organisation: &Organisation,
        out: &'o mut Vec<u8>,
        session: &mut SshSession,
        event: &'static str,
        code: &str,
    ) -> Fields<'o> {
        self.ssh_with(
            organisation,
            out,
            session,
            event,
            code,
            Overrides::default(),
        )
    }

    fn ssh_with<'o>(
        &mut self,
        organisation: &Organisation,
        out: &'o mut Vec<u8>,
        session: &mut SshSession,
        event: &'static str,
        code: &str,
        overrides: Overrides,
    ) -> Fields<'o> {
        let mut fields = self.begin(
            organisation,
            out,
            event,
            code,
            overrides.index.unwrap_or(session.index),
        );
        session.index += 1;
        fields.text("sid", session.id);
        let person = session.person(organisation);
        match overrides.user {
            None => self.who(&mut fields, person, true),
            Some(user) => {
                fields.text("user", user);
                fields.number(
                    "user_kind",
                    if user.starts_with("bot-") { 2.0 } else { 1.0 },
                );
                fields.text("user_cluster_name", &organisation.cluster);
                self.grants(&mut fields, person, true);
            }
        }
        fields.text("login", session.login);
        if !overrides.without_server {
            fields.entries(&session.node(organisation).server);
            let mut local = ShortText::default();
            local.push(b"10.0.");
            local.push_number(u64::from(session.index & 255));
            local.push(b".");
            local.push_number(session.started_at & 255);
            local.push(b":3022");
            fields.text("addr.local", local);
            fields.text("addr.remote", session.remote);
            fields.text("proto", if overrides.kubernetes { "kube" } else { "ssh" });
        }
        fields
    }
}
