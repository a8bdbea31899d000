#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Prints what GStreamer knows about the element, without what differs between machines and builds.
# docs/streamkvqa.inspect.txt is its output.
#
#   pipelines/inspect.sh
set -eu
. "$(dirname "$0")/env.sh"
gst-inspect-1.0 --no-colors streamkvqa |
    sed -e '/^  Filename /d' -e '/^  Version /d' -e '/^  Source release date /d' -e 's/ *$//'
