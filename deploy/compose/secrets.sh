# Makes the secrets of docker-compose.yml, once, each where one service alone sees it. Run by the service "secrets", as root, in /secrets:
#
#   database     the owner's password                                          Postgres, which starts as root
#   owner        the owner's URL, for psql too, and the passwords of users     migrate and roles
#   worker       the worker's URL, api key, signing key, tokens of its pages   worker
#   ui           the worker's URL, the password of the pages                   ui
#   story        the writer's URL, api key                                     story
#   peer         api key, the workers' public key                              the peers
#   prometheus   the token that opens the workers' metrics, and nothing else   prometheus
#   grafana      its password                                                  grafana
#   login        what people are told                                          login
#
# To make them anew, remove all volumes of secrets but "database": Postgres has the owner's password in its data folder.
umask 077
cd "${SECRETS:-/secrets}"

all='database owner worker ui story peer prometheus grafana login'
whole=yes
for part in $all; do
  [ -e "$part/made" ] || whole=
done
if [ -n "$whole" ]; then exit 0; fi

# put FILE OWNER TO...
put() {
  from=$1 owner=$2
  shift 2
  for to in "$@"; do
    rm -f "$to"
    cp "$from" "$to"
    chown "$owner" "$to"
  done
}
random() { openssl rand -hex 32; }
url() { printf 'postgres://%s:%s@postgres:5432/quorumbox?sslmode=disable' "$1" "$(cat "$2")"; }
ours=65532:65532

[ -s database/password ] || { random >/tmp/password && cp /tmp/password database/password; }
cp database/password /tmp/owner
printf 'postgres:5432:quorumbox:quorumbox:%s\n' "$(cat /tmp/owner)" >/tmp/pgpass
url quorumbox /tmp/owner >/tmp/owner-url
random >/tmp/worker-password
random >/tmp/story-password
url worker /tmp/worker-password >/tmp/worker-url
url story /tmp/story-password >/tmp/story-url
put /tmp/pgpass $ours owner/pgpass
put /tmp/owner-url $ours owner/database-url
put /tmp/worker-password $ours owner/worker-password
put /tmp/story-password $ours owner/story-password
put /tmp/worker-url $ours worker/database-url ui/database-url
put /tmp/story-url $ours story/database-url
put /tmp/owner $ours login/database-password

random >/tmp/api-key
put /tmp/api-key $ours worker/api-key story/api-key peer/api-key login/api-key

# The last 32 bytes of either DER form are the raw key (RFC 8410, section 4 and 7).
openssl genpkey -algorithm ed25519 -outform DER -out /tmp/key
tail -c 32 /tmp/key >/tmp/signing.priv
openssl pkey -inform DER -in /tmp/key -pubout -outform DER | tail -c 32 >/tmp/signing.pub
put /tmp/signing.priv $ours worker/signing.priv
put /tmp/signing.pub $ours worker/signing.pub
mkdir -p -m 755 peer/keys
put /tmp/signing.pub $ours peer/keys/host:compose.pub

random >/tmp/admin-token
put /tmp/admin-token $ours worker/admin-token
random >/tmp/metrics-token
put /tmp/metrics-token $ours worker/metrics-token
put /tmp/metrics-token 65534:65534 prometheus/metrics-token
openssl rand -hex 12 >/tmp/ui-password # typed by people
put /tmp/ui-password $ours ui/password login/ui-password
openssl rand -hex 12 >/tmp/grafana-password
put /tmp/grafana-password 472:0 grafana/password
put /tmp/grafana-password $ours login/grafana-password

for part in $all; do
  # A volume belongs to root; who is to read it must get in.
  chmod 755 "$part"
  touch "$part/made"
done
