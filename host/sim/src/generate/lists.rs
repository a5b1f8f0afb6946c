//! The values in generated events. All of them are synthetic; some are awkward on purpose.

pub(crate) const USERS: [&str; 22] = [
    "alice",
    "bob",
    "carol",
    "dmitri.petrov",
    "erin@example.com",
    "frank@example.com",
    "grace.hopper@example.com",
    "heidi",
    "ivan@example.com",
    "judy",
    "mallory",
    "niaj",
    "olivia@example.com",
    "peggy",
    "rupert",
    "sybil@example.com",
    "trent",
    "victor",
    "walter@example.com",
    "zo\u{eb}@example.com",
    "bot-ci-deploy",
    "bot-terraform",
];
pub(crate) const LOGINS: [&str; 6] = ["root", "ubuntu", "ec2-user", "deploy", "admin", "postgres"];
pub(crate) const ROLES: [&str; 13] = [
    "access",
    "editor",
    "auditor",
    "reviewer",
    "db-readonly",
    "db-admin",
    "kube-dev",
    "kube-admin",
    "prod-ssh",
    "stage-ssh",
    "requester",
    "app-grafana",
    "device-admin",
];
pub(crate) const TEAMS: [&str; 6] = ["platform", "payments", "search", "data", "sre", "security"];
pub(crate) const ENVS: [&str; 3] = ["prod", "staging", "dev"];
pub(crate) const REGIONS: [&str; 4] = ["us-east-1", "us-west-2", "eu-central-1", "ap-southeast-2"];
pub(crate) const USER_AGENTS: [&str; 5] = [
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "tsh/17.4.2 grpc-go/1.68.0",
    "Go-http-client/1.1",
    "kubectl/v1.31.2 (linux/amd64) kubernetes/5864a46",
];
pub(crate) const COMMANDS: [&str; 12] = [
    "ls -la /var/log",
    "systemctl status nginx",
    "journalctl -u app -n 200 --no-pager",
    "kubectl get pods -A",
    "cat /etc/hosts",
    "tail -f /var/log/syslog",
    "df -h",
    "sudo -u app /opt/app/bin/migrate --dry-run",
    "psql -c 'select 1'",
    "grep -R \"TODO: \\\"fix\\\"\" src/ | head",
    "top -b -n1",
    "curl -s http://127.0.0.1:8080/healthz",
];
pub(crate) const SQL: [&str; 9] = [
    "SELECT id, email, created_at FROM users WHERE tenant_id = $1 AND deleted_at IS NULL ORDER BY created_at DESC LIMIT 50",
    "UPDATE orders SET status = 'shipped', updated_at = now() WHERE id = 918273",
    "SELECT count(*) FROM payments p JOIN invoices i ON i.id = p.invoice_id WHERE i.due_at < now() - interval '30 days'",
    "INSERT INTO audit_log (actor, action, target, meta) VALUES ('svc', 'rotate', 'key/42', '{\"reason\":\"scheduled\"}')",
    "select\n  table_name,\n  pg_size_pretty(pg_total_relation_size(quote_ident(table_name)))\nfrom information_schema.tables\n\
     where table_schema = 'public'",
    "BEGIN",
    "COMMIT",
    "SHOW TABLES",
    "EXPLAIN ANALYZE SELECT * FROM events WHERE payload @> '{\"type\":\"login\"}'",
];
/// The parts of a path before, between and after namespace and pod.
pub(crate) const KUBE_PATHS: [(&str, &str, Option<&str>); 5] = [
    ("/api/v1/namespaces/", "/pods/", Some("")),
    ("/api/v1/namespaces/", "/pods?limit=500", None),
    ("/apis/apps/v1/namespaces/", "/deployments/", Some("")),
    ("/api/v1/namespaces/", "/secrets/", Some("-tls")),
    (
        "/api/v1/namespaces/",
        "/pods/",
        Some("/log?container=main&follow=true&tailLines=100"),
    ),
];
pub(crate) const NAMESPACES: [&str; 6] = [
    "default",
    "kube-system",
    "payments",
    "search",
    "monitoring",
    "ingress-nginx",
];
pub(crate) const APPLICATIONS: [&str; 6] = [
    "grafana",
    "jenkins",
    "argocd",
    "wiki",
    "aws-console",
    "kibana",
];
pub(crate) const REASONS: [&str; 7] = [
    "deploy hotfix for INC-20417",
    "investigate alert \"HighLatency\" on payments-api",
    "quarterly access review",
    "r\u{e9}paration de la base \u{2014} ticket #881",
    "\u{8abf}\u{67fb}\u{306e}\u{305f}\u{3081}\u{306e}\u{30a2}\u{30af}\u{30bb}\u{30b9}",
    "emergency: disk full \u{1F525}",
    "",
];
pub(crate) const ERRORS: [&str; 5] = [
    "invalid credentials",
    "access to database denied. User does not have permissions. Confirm database user and name.",
    "ssh: principal \"root\" not in the set of valid principals for given certificate: [\"ubuntu\" \"deploy\"]",
    "device trust required\n\tthe device is not enrolled",
    "user(name=\"mallory\") not found",
];
