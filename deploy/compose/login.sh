# Prints addresses and logins of docker-compose.yml for people. With a name, that secret alone: for scripts.
cd /run/quorumbox
if [ ! -e made ]; then
  echo 'login: there are no secrets yet: run `docker compose up --build --detach --wait` first' >&2
  exit 1
fi
case ${1:-} in
  api-key | database-password | ui-password | grafana-password) cat "$1" ;;
  '')
    cat <<TEXT
job pages and status   http://127.0.0.1:$UI_PORT/
  user quorumbox, password $(cat ui-password)

with the profile observability
Grafana                http://127.0.0.1:$GRAFANA_PORT/
  user quorumbox, password $(cat grafana-password)
Prometheus             http://127.0.0.1:$PROMETHEUS_PORT/

for scripts: docker compose run --rm login api-key             what the peers ask for (x-api-key)
             docker compose run --rm login database-password   of the owner quorumbox, at 127.0.0.1:$POSTGRES_PORT
TEXT
    ;;
  *)
    echo "login: $1 is none of api-key, database-password, ui-password and grafana-password" >&2
    exit 2
    ;;
esac
