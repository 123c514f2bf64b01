#!/bin/sh
# sh install.sh BUILD SOURCE: installs the build, moves the installed tree elsewhere, and uses it as a stranger would:
# through pkg-config and through CMake, with gcc and clang, from C11 and C++17, shared and static; and the second library,
# if it was built. Then the same programs in a project that builds aloop along with itself.
set -eu
build=$1
source=$2
here=$source/test/package
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
trap 'exit 1' HUP INT TERM
log=$temporary/log

fail() {
  echo "install: $*" >&2
  exit 1
}

# quiet COMMAND...: what it prints is shown only if it fails.
quiet() {
  "$@" >"$log" 2>&1 || {
    cat "$log" >&2
    fail "failed: $*"
  }
}

# says_hello PROGRAM [TEXT]: runs it against the installed shared library.
says_hello() {
  said=$(LD_LIBRARY_PATH=$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} DYLD_LIBRARY_PATH=$libdir "$1") || fail "$1 ended with $?"
  [ "$said" = "${2:-hello from} aloop $version" ] || fail "$1 said: $said"
}

quiet cmake --install "$build" --prefix "$temporary/first"
mv "$temporary/first" "$temporary/installed tree"
prefix="$temporary/installed tree"
pc=$(find "$prefix" -name aloop.pc)
[ -n "$pc" ] || fail "no aloop.pc"
libdir=$(dirname "$(dirname "$pc")")
for file in include/aloop.h "${libdir#"$prefix/"}/libaloop.a" "${libdir#"$prefix/"}/cmake/aloop/aloopConfig.cmake"; do
  [ -f "$prefix/$file" ] || fail "$file is not installed"
done
if grep -rF -e "$build/" -e "$source/" -e "$temporary/first" "$libdir/pkgconfig" "$libdir/cmake" >&2; then
  fail "a package file names the place it was built in"
fi
version=$(sed -n 's/^Version: //p' "$pc")
tls=OFF
if [ -f "$libdir/pkgconfig/aloop-openssl.pc" ]; then
  tls=ON
  [ -f "$libdir/libaloop-openssl.a" ] || fail "libaloop-openssl.a is not installed"
fi

generator=Unix\ Makefiles
command -v ninja >/dev/null && generator=Ninja

# missing_libraries COMPILER PACKAGE: a sed script that takes out what a static OpenSSL would need besides and is not
# installed: ours is linked statically, OpenSSL is not.
missing_libraries() {
  for library in $(pkg-config --static --libs-only-l "$2"); do
    case $library in -laloop*) continue ;; esac
    echo 'int main(void) { return 0; }' | "$1" -x c - -o "$temporary/program" "$library" 2>"$temporary/probe.log" ||
      printf '%s' "s#$library\\( \\|\$\\)##;"
  done
}

# with_pkg_config COMPILER STANDARD FILE PACKAGE TEXT
with_pkg_config() {
  PKG_CONFIG_PATH=$libdir/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
  export PKG_CONFIG_PATH
  [ "$(pkg-config --modversion "$4")" = "$version" ] || fail "pkg-config --modversion $4"
  cflags=$(pkg-config --cflags "$4")
  for kind in shared static; do
    libs=$(pkg-config --libs "$4")
    if [ $kind = static ]; then
      libs=$(pkg-config --static --libs "$4" | sed "$(missing_libraries "$1" "$4")
        s#-l\\(aloop-openssl\\)#'$libdir/lib\\1.a'#; s#-laloop#'$libdir/libaloop.a'#")
    fi
    # eval, because pkg-config quotes the blank in the path.
    eval "quiet $1 -std=$2 -Wall -Wextra -pedantic-errors -Werror $cflags '$3' -o '$temporary/program' $libs"
    says_hello "$temporary/program" "$5"
  done
}

# with_cmake CC CXX WHERE: WHERE is one argument for CMake that tells it where aloop is.
with_cmake() {
  languages=C
  command -v "$2" >/dev/null && languages="C;CXX"
  rm -rf "$temporary/consumer"
  quiet cmake -S "$here/consumer" -B "$temporary/consumer" -G "$generator" -DCMAKE_C_COMPILER="$1" \
    -DCMAKE_CXX_COMPILER="$2" "-DCONSUMER_LANGUAGES=$languages" -DCONSUMER_TLS=$tls "$3"
  quiet cmake --build "$temporary/consumer"
  for program in "$temporary"/consumer/hello_*; do
    says_hello "$program"
  done
  [ $tls = OFF ] || for program in "$temporary"/consumer/tls_*; do
    says_hello "$program" "openssl for"
  done
}

for program in hello tls; do
  cp "$here/consumer/$program.c" "$temporary/$program.cc"
done
used=0
for pair in gcc:g++ clang:clang++ cc:c++; do
  cc=${pair%:*}
  cxx=${pair#*:}
  [ "$cc" = cc ] && [ $used -gt 0 ] && continue
  command -v "$cc" >/dev/null || continue
  used=$((used + 1))
  if command -v pkg-config >/dev/null; then
    with_pkg_config "$cc" c11 "$here/consumer/hello.c" aloop "hello from"
    command -v "$cxx" >/dev/null && with_pkg_config "$cxx" c++17 "$temporary/hello.cc" aloop "hello from"
    if [ $tls = ON ]; then
      with_pkg_config "$cc" c11 "$here/consumer/tls.c" aloop-openssl "openssl for"
      command -v "$cxx" >/dev/null && with_pkg_config "$cxx" c++17 "$temporary/tls.cc" aloop-openssl "openssl for"
    fi
  fi
  with_cmake "$cc" "$cxx" "-DCMAKE_PREFIX_PATH=$prefix"
done
[ $used -gt 0 ] || fail "no C compiler"

# A version that the package does not offer must be refused, and so must a component. Without one no OpenSSL is needed.
configure() {
  sed "s/find_package(aloop .*/$1/" "$here/consumer/CMakeLists.txt" >"$temporary/CMakeLists.txt"
  rm -rf "$temporary/configured"
  cmake -S "$temporary" -B "$temporary/configured" -DCONSUMER_LANGUAGES=C "-DCMAKE_PREFIX_PATH=$prefix" >"$log" 2>&1
}
cp "$here/consumer/hello.c" "$temporary/"
for wrong in "0.999 REQUIRED" "0.1 REQUIRED COMPONENTS nonsense"; do
  if configure "find_package(aloop $wrong)"; then fail "find_package(aloop $wrong) succeeded"; fi
done
quiet configure "find_package(aloop 0.1 REQUIRED)"

# Built along with its user, by FetchContent, which adds the folder.
with_cmake cc c++ "-DALOOP_SOURCE=$source"
