#!/bin/sh
# sh certificates.sh FOLDER [NAME...]: a throw-away certificate authority and what it has signed, for tests and trials.
# Nobody should believe in it elsewhere: the keys lie about unprotected.
#
#   ca.pem ca.key                who is to be believed
#   server.pem server.key        for the NAMEs, or else localhost, 127.0.0.1 and ::1; with the chain behind it
#   client.pem client.key        for a client that has to show one
#   other.pem other.key          for other.test and *.wild.test, to be chosen by name
#   encrypted.key                server.key, with the password "secret"
#   expired.pem wronghost.pem selfsigned.pem revoked.pem (.key)    to be refused
#   revoked_client.pem (.key)    of a client, to be refused
#   crl.pem                      says that the revoked ones are
set -eu
if [ $# -lt 1 ]; then
  sed -n '2,/^set/p' "$0" | sed -n 's/^# \{0,1\}//p'
  exit 1
fi
folder=$1
shift
[ $# -gt 0 ] || set -- localhost 127.0.0.1 ::1
mkdir -p "$folder"
cd "$folder"
umask 077

quiet() {
  "$@" 2>openssl.log || {
    cat openssl.log >&2
    exit 1
  }
}

# names NAME...: as the certificate has them.
names() {
  for name in "$@"; do
    case $name in
    *:* | *[0-9].[0-9]*.[0-9]*.[0-9]*) printf 'IP:%s,' "$name" ;;
    *) printf 'DNS:%s,' "$name" ;;
    esac
  done | sed 's/,$//'
}

make_key() {
  quiet openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
}

cat >ca.cnf <<END
[ca]
default_ca = here
[here]
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_crl_days = 3650
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
END
: >index.txt
echo 1000 >serial
echo 1000 >crlnumber

make_key ca
quiet openssl req -new -x509 -config ca.cnf -extensions authority -key ca.key -subj "/CN=aloop trial CA" -days 3650 \
  -out ca.pem

# signed FILE COMMON_NAME USE START END NAME...
signed() {
  file=$1
  subject=$2
  use=$3
  start=$4
  end=$5
  shift 5
  make_key "$file"
  quiet openssl req -new -config ca.cnf -key "$file.key" -subj "/CN=$subject" -out "$file.csr" \
    -addext "subjectAltName=$(names "$@")" -addext "extendedKeyUsage=$use" -addext "basicConstraints=CA:FALSE"
  quiet openssl ca -batch -notext -config ca.cnf -in "$file.csr" -out "$file.pem" -startdate "$start" -enddate "$end"
  rm "$file.csr"
}

past=20200101000000Z
future=20491231000000Z
signed server "$1" serverAuth $past $future "$@"
signed client "trial client" clientAuth $past $future client.test
signed revoked_client "revoked client" clientAuth $past $future client.test
signed other other.test serverAuth $past $future other.test '*.wild.test'
signed expired "$1" serverAuth $past 20200201000000Z "$@"
signed wronghost wronghost.test serverAuth $past $future wronghost.test
signed revoked "$1" serverAuth $past $future "$@"
quiet openssl ca -config ca.cnf -revoke revoked.pem
quiet openssl ca -config ca.cnf -revoke revoked_client.pem
quiet openssl ca -config ca.cnf -gencrl -out crl.pem
make_key selfsigned
quiet openssl req -new -x509 -config ca.cnf -key selfsigned.key -subj "/CN=$1" -days 3650 -out selfsigned.pem \
  -addext "subjectAltName=$(names "$@")"
quiet openssl ec -in server.key -aes256 -passout pass:secret -out encrypted.key
for file in server client other expired wronghost revoked revoked_client; do
  cat ca.pem >>$file.pem
done
rm -f ca.cnf index.txt* serial* crlnumber* openssl.log [0-9A-F]*.pem
