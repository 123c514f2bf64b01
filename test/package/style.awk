# What style.sh checks in the C files of src/ and include/, in one pass. Prints one line per fault. Its view of C is that
# of clang-format's output: a function's signature starts in the first column, and so does its closing brace.
#
# Variables: exceptions (a file of "long PATH:FUNCTION LINES REASON..." lines).

function fault(line, text) {
  print FILENAME ":" line ": " text
}

# Blanks out comments and the insides of strings, so that words are words of code.
function code(line,    out, end) {
  out = ""
  while (line != "") {
    if (in_comment) {
      end = index(line, "*/")
      if (end == 0) return out
      line = substr(line, end + 2)
      in_comment = 0
    } else if (match(line, /^"([^"\\]|\\.)*"/) || match(line, /^'([^'\\]|\\.)*'/)) {
      out = out "\"\""
      line = substr(line, RLENGTH + 1)
    } else if (substr(line, 1, 2) == "/*") {
      in_comment = 1
      line = substr(line, 3)
    } else {
      match(line, /^.[^"'\/]*/)
      out = out substr(line, 1, RLENGTH)
      line = substr(line, RLENGTH + 1)
    }
  }
  return out
}

# Which floor of the house a folder is on: a file may include its own floor and those below.
function floor_of(path) {
  if (path ~ /^(src\/)?(core|poller)\//) return 1
  if (path ~ /^(src\/)?future\//) return 2
  if (path ~ /^(src\/)?(net|executor)\//) return 3
  if (path ~ /^(src\/)?(tls|process)\//) return 4
  if (path ~ /^(src\/)?task\//) return 5
  return 0
}

function end_of_file() {
  if (last_file == "") return
  if (last_file ~ /^src\/.*\.c$/ && essay < 5)
    print last_file ":1: opens with an essay of " essay " lines; at least 5 say what it owns and why"
  if (last_file ~ /^src\// && last_line > 800) print last_file ": " last_line " lines, more than 800"
}

function end_of_function(    key, lines) {
  lines = FNR - started + 1
  key = FILENAME ":" name
  if (key in allowed) {
    used[key] = 1
    if (lines > allowed[key]) fault(started, name "() has " lines " lines, its exception allows " allowed[key])
    else if (lines <= 60) fault(started, name "() needs its exception no longer: remove it")
  } else if (lines > 60) {
    fault(started, name "() has " lines " lines, more than 60")
  }
}

BEGIN {
  while ((getline line < exceptions) > 0) {
    if (split(line, word, " ") >= 4 && word[1] == "long") allowed[word[2]] = word[3]
  }
  banned = "strcpy strcat sprintf vsprintf gets strtok atoi atol atoll atof alloca printf puts perror abort exit sleep usleep"
  split(banned, list, " ")
  for (i in list) is_banned[list[i]] = 1
}

FNR == 1 {
  end_of_file()
  last_file = FILENAME
  essay = 0
  in_comment = in_macro = 0
  opening = 1
  top = ""
  body = 0
  if ($0 != "/* SPDX-License-Identifier: MIT" && FILENAME ~ /^src\//) fault(1, "does not open with the licence line")
}

{
  last_line = FNR
  if (length($0) > 112) fault(FNR, length($0) " columns, more than 112")
  if ($0 ~ /(TODO|FIXME|XXX)/) fault(FNR, "unfinished business belongs in the tracker")
  if (opening && $0 ~ /\*\//) opening = 0
  if (opening && FNR > 1) essay++

  text = code($0)
  continued = in_macro
  in_macro = (continued || text ~ /^ *#/) && text ~ /\\$/

  if (match(text, /^ *# *include +/) && $0 ~ /"/) {
    split($0, part, "\"")
    if (floor_of(part[2]) > floor_of(FILENAME) && floor_of(FILENAME) > 0) fault(FNR, "includes " part[2] " of a higher room")
  }

  rest = text
  while (match(rest, /[A-Za-z_][A-Za-z_0-9]*[ ]*\(/)) {
    word_found = substr(rest, RSTART, RLENGTH - 1)
    sub(/ +$/, "", word_found)
    before = RSTART > 1 ? substr(rest, RSTART - 1, 1) : ""
    if (FILENAME ~ /^src\// && FILENAME != "src/core/check.h" && before != "." && before != ">") {
      if (word_found in is_banned) fault(FNR, word_found "() is not used in the library")
      if (word_found == "assert") fault(FNR, "bare assert(): use the macros of src/core/check.h")
      if (word_found == "clock_gettime" && ++clocks > 1) fault(FNR, "a second place that reads the clock")
    }
    rest = substr(rest, RSTART + RLENGTH)
  }

  if (continued || text ~ /^ *#/) next
  if (body) {
    if (text ~ /^}/) {
      end_of_function()
      body = 0
    }
    next
  }
  if (top == "" && text ~ /^[A-Za-z_]/) started = FNR
  if (top != "" || text ~ /^[A-Za-z_]/) top = top " " text
  if (top == "") next
  if (text ~ /{ *$/ && top ~ /\(/ && top !~ /=/ && top !~ /^ *(typedef|struct|union|enum|extern) /) {
    name = top
    sub(/^ *(__attribute__ *\(\(.*\)\) *)?/, "", name)
    sub(/ *\(.*/, "", name)
    sub(/.*[ *]/, "", name)
    body = 1
    top = ""
  } else if (text ~ /; *$/ && (top !~ /{/ || text ~ /^}/ || top ~ /}[^}]*; *$/)) {
    if (top ~ /^ *static .*\) *;/ && top !~ /[={]/ && top !~ /\(\*/)
      fault(started, "forward declaration of a static function: define it before its callers")
    top = ""
  } else if (text ~ /^}/) {
    top = ""
  }
}

END {
  end_of_file()
  for (key in allowed) if (!(key in used)) print exceptions ": " key " is gone: remove its line"
}
