#!/bin/sh
# sh run.sh [-m MODULE]... [-f FILE]... KERNEL COMMAND...: runs a shell command in another Linux, under qemu.
#
# KERNEL is a folder into which packages of a kernel were unpacked, one or several:
#
#     apt-get download linux-image-6.1.0-56-amd64 && dpkg -x linux-image-*.deb KERNEL
#
# The guest has nothing but memory and a loopback device: busybox, the modules that are named and those that the kernel asks
# for, and the files and folders that are named, at their places, with the libraries that their programs want. A command
# that is a program of this machine has to be named, too. The guest's output is ours, and so is the command's exit status.
#
#     sh test/kernel/run.sh -m tls -f build/examples/http -f build/examples/tcp_echo -f build/examples/https_get \
#       -f test/scenario -f test/support -f examples/certificates.sh -f /usr/bin/openssl -f /usr/bin/curl \
#       -f /usr/lib/ssl/openssl.cnf KERNEL sh test/scenario/tls_kernel.sh build .
#     sh test/kernel/run.sh -m tls -f build/test/test_tls KERNEL build/test/test_tls
#
# Wanted: qemu-system-x86, busybox-static, cpio, kmod.
set -eu
modules= files=
while getopts m:f: option; do
  case $option in
  m) modules="$modules $OPTARG" ;;
  f) files="$files $OPTARG" ;;
  *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
kernel=$1
shift
image=$(find "$kernel" -name 'vmlinuz*' | head -n 1)
version=$(basename "$(find "$kernel" -path '*/lib/modules/*' -prune | head -n 1)")
[ -n "$image" ] && [ -n "$version" ] || {
  echo "no vmlinuz and no modules in $kernel" >&2
  exit 2
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
root=$folder/root
mkdir -p "$root/bin" "$root/sbin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/etc" "$root/root" "$root/lib/modules"

# ---- Modules: of networks and of cryptography, with what finds them ----------------------------------------------

lib=$(find "$kernel" -path "*/lib/modules/$version" | head -n 1)
(cd "$lib" && find . -name 'modules.builtin*' -o -name modules.order -o \
  \( -path '*/net/tls/*' -o -path '*/crypto/*' -o -path '*/lib/*' -o -path '*/net/ipv4/*' \) -name '*.ko*' |
  cpio -pdm --quiet "$folder/lib/modules/$version")
cp -r "$folder/lib/modules/$version" "$root/lib/modules/"
find "$root/lib/modules" -name '*.ko.xz' -exec xz -d {} +
depmod -b "$root" "$version"

# ---- Files -------------------------------------------------------------------------------------------------------

copy() {
  mkdir -p "$root$(dirname "$1")"
  [ -e "$root$1" ] || cp -rL "$1" "$root$1"
}

for file in $files; do
  file=$(realpath "$file")
  copy "$file"
  find "$file" -type f -perm -100 -exec ldd {} \; 2>/dev/null | grep -o '/[^ )]*' || true
done | sort -u >"$folder/libraries"
while read -r library; do [ ! -f "$library" ] || copy "$library"; done <"$folder/libraries"
cp "$(command -v busybox)" "$root/bin/busybox"
for name in $("$root/bin/busybox" --list); do
  case $name in
  init | busybox) ;;
  *) [ -e "$root/bin/$name" ] || ln -s busybox "$root/bin/$name" ;;
  esac
done
ln -s ../bin/busybox "$root/sbin/modprobe"
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"

# ---- The guest ---------------------------------------------------------------------------------------------------

cat >"$root/init" <<END
#!/bin/sh
PATH=/usr/local/bin:/usr/bin:/bin:/sbin
HOME=/root
export PATH HOME
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
ln -s /proc/self/fd /dev/fd
mount -t tmpfs tmp /tmp
ip link set lo up
for module in $modules; do modprobe \$module; done
cd $(pwd)
$(env | sed -n "s/^\(ALOOP_[A-Z]*\|KERNEL_[A-Z_]*\)=\([a-z0-9]*\)\$/export \1=\2/p")
$*
echo "exit status \$?"
poweroff -f
END
chmod +x "$root/init"
mkdir -p "$root$(pwd)"
(cd "$root" && find . | cpio -o -H newc --quiet) | gzip -1 >"$folder/initrd"
timeout "${KERNEL_TIMEOUT:-1800}" qemu-system-x86_64 -accel tcg -cpu max -smp 2 -m 2048 -nographic -no-reboot -nic none \
  -kernel "$image" -initrd "$folder/initrd" -append "console=ttyS0 quiet panic=-1 mitigations=off" </dev/null |
  tr -d '\r' | tee "$folder/output"
status=$(sed -n 's/^exit status //p' "$folder/output" | tail -n 1)
exit "${status:-1}"
