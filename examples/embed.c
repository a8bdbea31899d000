/* SPDX-License-Identifier: MPL-2.0
 *
 * An application with the element inside, in C: a video plays, a question is asked again and again, and each
 * answer is printed with the seconds of video that it rests on.
 *
 *   cc examples/embed.c -o embed $(pkg-config --cflags --libs gstreamer-1.0)
 *   ./embed video.webm models/everyday "what is here now?"
 *
 * The plugin has to be installed or on GST_PLUGIN_PATH.
 */
#include <gst/gst.h>

static void
print_answer (const GstStructure * answer)
{
  const gchar *question = gst_structure_get_string (answer, "question");
  const gchar *text = gst_structure_get_string (answer, "answer");
  const GValue *evidence = gst_structure_get_value (answer, "evidence");
  guint64 asked = 0, start, end;
  guint i;

  gst_structure_get_uint64 (answer, "asked-at", &asked);
  g_print ("%7.1f s  %s  %s", asked / 1e9, question, text);
  for (i = 0; evidence && i < gst_value_list_get_size (evidence); i++) {
    const GstStructure *span =
        gst_value_get_structure (gst_value_list_get_value (evidence, i));
    if (gst_structure_get_uint64 (span, "start", &start)
        && gst_structure_get_uint64 (span, "end", &end))
      g_print ("  [%.1f-%.1f s]", start / 1e9, end / 1e9);
  }
  g_print ("\n");
}

int
main (int argc, char **argv)
{
  GstElement *pipeline, *qa, *file;
  GstBus *bus;
  gboolean done = FALSE;
  int status = 0;
  GError *error = NULL;

  gst_init (&argc, &argv);
  if (argc < 4) {
    g_printerr ("usage: %s VIDEO MODEL QUESTION\n", argv[0]);
    return 2;
  }
  pipeline = gst_parse_launch ("filesrc name=file ! decodebin ! "
      "streamkvqa name=qa question-interval=5000000000 ! fakesink sync=false", &error);
  /* There is one even where an element is missing; the error tells. */
  if (error) {
    g_printerr ("error: %s\n", error->message);
    g_clear_error (&error);
    if (pipeline)
      gst_object_unref (pipeline);
    return 1;
  }
  file = gst_bin_get_by_name (GST_BIN (pipeline), "file");
  qa = gst_bin_get_by_name (GST_BIN (pipeline), "qa");
  g_object_set (file, "location", argv[1], NULL);
  g_object_set (qa, "model-path", argv[2], "question", argv[3], NULL);
  gst_object_unref (file);
  gst_object_unref (qa);

  bus = gst_element_get_bus (pipeline);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  while (!done) {
    GstMessage *message = gst_bus_timed_pop (bus, GST_CLOCK_TIME_NONE);
    const GstStructure *structure = gst_message_get_structure (message);

    if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR) {
      gst_message_parse_error (message, &error, NULL);
      g_printerr ("error: %s\n", error->message);
      g_clear_error (&error);
      status = 1;
      done = TRUE;
    } else if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_EOS) {
      done = TRUE;
    } else if (structure && gst_structure_has_name (structure, "streamkvqa/answer")) {
      print_answer (structure);
    }
    gst_message_unref (message);
  }
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (bus);
  gst_object_unref (pipeline);
  /* GST_TRACERS=leaks tells what is alive now. */
  gst_deinit ();
  return status;
}
