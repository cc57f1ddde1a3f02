# finedge_embed(VARIABLE FOLDER) writes a C++ source that holds every image of FOLDER. It puts the
# path of the source into VARIABLE. The assembler reads the bytes (.incbin), so the build needs no
# tool but the compiler, and an image may have any size.
function(finedge_embed variable folder)
  file(GLOB images CONFIGURE_DEPENDS ${folder}/*.ptx ${folder}/*.cubin)
  set(names "")
  set(bytes "")
  set(table "")
  foreach(image IN LISTS images)
    if(NOT image MATCHES "\\.sm_([0-9]+)\\.(ptx|cubin)$")
      message(FATAL_ERROR "${image}: expected a name that ends with .sm_87.cubin or .sm_80.ptx")
    endif()
    set(architecture ${CMAKE_MATCH_1})
    string(COMPARE EQUAL ${CMAKE_MATCH_2} ptx is_ptx)
    set(name finedge_sm_${architecture}_${CMAKE_MATCH_2})
    string(APPEND names
           "extern \"C\" __attribute__((visibility(\"hidden\"))) char const ${name}[];\n")
    string(APPEND bytes ".balign 16\\n${name}: .incbin \\\"${image}\\\"\\n.byte 0\\n")
    string(APPEND table "    {${architecture}, ${is_ptx}, ${name}},\n")
  endforeach()
  if(NOT images)
    message(FATAL_ERROR
            "no kernel images in ${folder}: `make kernels` writes them")
  endif()
  set(source ${CMAKE_CURRENT_BINARY_DIR}/images.cpp)
  file(CONFIGURE OUTPUT ${source} @ONLY CONTENT "#include \"image.h\"

asm(\".pushsection .rodata\\n@bytes@.popsection\");
@names@
finedge::Image const finedge::kImages[] = {
@table@};
int const finedge::kImageCount = sizeof kImages / sizeof *kImages;
")
  set_source_files_properties(${source} PROPERTIES OBJECT_DEPENDS "${images}")
  set(${variable} ${source} PARENT_SCOPE)
endfunction()
