# What the C library really calls its functions. With _FILE_OFFSET_BITS=64 or _TIME_BITS=64 its headers send open to open64
# and setsockopt to __setsockopt64, on some machines only, and a linker knows no other name than the last one. So the
# headers are asked, once for all names.
set(called_text "")
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  set(called_source "")
  foreach(header fcntl poll pthread sched sys/epoll sys/eventfd sys/mman sys/select sys/sendfile sys/socket sys/stat sys/uio
      sys/wait unistd)
    string(APPEND called_source "#include <${header}.h>\n")
  endforeach()
  file(WRITE ${PROJECT_BINARY_DIR}/called.c "${called_source}")
  get_target_property(called_flags aloop_flags INTERFACE_COMPILE_DEFINITIONS)
  list(TRANSFORM called_flags PREPEND -D)
  separate_arguments(called_more NATIVE_COMMAND "${CMAKE_C_COMPILER_ARG1} ${CMAKE_C_FLAGS}")
  if(called_flags)
    list(APPEND called_more ${called_flags})
  endif()
  execute_process(COMMAND ${CMAKE_C_COMPILER} ${called_more} -D_GNU_SOURCE -E -P ${PROJECT_BINARY_DIR}/called.c
    OUTPUT_VARIABLE called_text ERROR_QUIET)
  string(REPLACE "\n" " " called_text "${called_text}")
  string(REPLACE ";" "\n" called_text "${called_text}")
endif()

function(aloop_called name called)
  set(${called} ${name} PARENT_SCOPE)
  if(called_text MATCHES "[ *]${name} *(\\([^\n]*\\))? *__asm__ *\\([\" ]*\"([A-Za-z0-9_]+)\"")
    set(${called} ${CMAKE_MATCH_2} PARENT_SCOPE)
  endif()
endfunction()

# The linker's options that make a test's __wrap_NAME stand before NAME, and what calls __wrap_NAME in the source so.
function(aloop_wrap_options options definitions)
  set(all_options "")
  set(all_definitions "")
  foreach(name ${ARGN})
    aloop_called(${name} called)
    list(APPEND all_options -Wl,--wrap=${called})
    if(NOT called STREQUAL name)
      list(APPEND all_definitions __wrap_${name}=__wrap_${called} __real_${name}=__real_${called})
    endif()
  endforeach()
  set(${options} "${all_options}" PARENT_SCOPE)
  set(${definitions} "${all_definitions}" PARENT_SCOPE)
endfunction()

# For tests that stand before a function by defining it, and look for the real one with dlsym.
set(CALLED_DEFINITIONS "")
foreach(name getsockopt sendfile sendmsg)
  aloop_called(${name} called)
  string(TOUPPER ${name} macro)
  list(APPEND CALLED_DEFINITIONS CALLED_${macro}="${called}")
endforeach()
