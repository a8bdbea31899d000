// SPDX-License-Identifier: MPL-2.0
use super::*;

fn faults(text: &str) -> Vec<(usize, usize, String)> {
    let faults = Config::parse(text).unwrap_err().faults;
    faults.into_iter().map(|fault| (fault.line, fault.column, fault.message)).collect()
}

const YARD: &str = "[[camera]]\nid = \"yard\"\nuri = \"rtsp://yard/\"\n";

#[test]
fn a_file_says_what_is_wrong_where_and_what_is_expected() {
    for (text, line, column, said) in [
        ("[wall]\nname = 3\n", 2, 8, "expected a string"),
        ("[wall]\nnmae = \"a\"\n", 2, 1, "expected one of `name`"),
        ("[[camera]\n", 1, 10, "unclosed"),
        ("[wall]\nlisten = \"here\"\n", 2, 10, "127.0.0.1:8460"),
        ("[wall]\nlisten = \"0.0.0.0:80\"\n", 2, 10, "a token is needed"),
        ("[access]\ntokens = [\"0123456789abcdef\",\n  \"short\"]\n", 3, 3, "at least 16"),
        ("[history]\npicture_every = 0\n", 2, 17, "from 0.1"),
        ("\n[[camera]]\nid = \"Yard 1\"\nuri = \"a\"\n", 3, 6, "a-z"),
        ("\n[[camera]]\nid = \"yard\"\n", 2, 1, "neither uri nor pipeline"),
        (
            "[[camera]]\nid = \"a\"\nuri = \"u\"\n[[camera]]\nid = \"a\"\nuri = \"u\"\n",
            5,
            6,
            "already",
        ),
        ("[mqtt]\nurl = \"broker\"\n", 2, 7, "mqtt://"),
        ("[[webhook]]\nname = \"a\"\nurl = \"ftp://a\"\n", 3, 7, "https://"),
        (&format!("{YARD}properties = {{ model-path = \"x\" }}\n"), 4, 29, "the wall sets"),
        (
            &format!("{YARD}[[camera.standing]]\nquestion = \"is it?\"\nwhen = \"maybe\"\n"),
            4,
            1,
            "\"yes\", \"no\"",
        ),
        (
            &format!("{YARD}[[camera.standing]]\nquestion = \"is it?\"\non = \"motion\"\n"),
            6,
            6,
            "`detection`",
        ),
    ] {
        let found = faults(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        let (at_line, at_column, message) = &found[0];
        assert_eq!((*at_line, *at_column), (line, column), "{text}: {message}");
        assert!(message.contains(said), "{text}: {message}");
    }
}

#[test]
fn all_faults_are_told_by_line() {
    let found = faults("[[camera]]\nid = \"A\"\n[[camera]]\nid = \"b\"\nuri = \"\"\n");
    let lines: Vec<usize> = found.iter().map(|(line, ..)| *line).collect();
    assert_eq!(lines, [1, 2, 5], "{found:?}");
}

#[test]
fn standing_questions_have_names_that_stay() {
    let config = Config::parse(&format!(
        "{YARD}standing = [{{ question = \"Is the gate open?\" }}, {{ question = \"is the gate open\" }}, \
         {{ id = \"is-the-gate-open\", question = \"x\" }}, {{ question = \"?\" }}]\n"
    ));
    let config = config.unwrap();
    let ids: Vec<String> = standing_of(&config.cameras[0]).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["is-the-gate-open-2", "is-the-gate-open-3", "is-the-gate-open", "question"]);
}

#[test]
fn another_name_needs_no_other_pipeline_and_another_address_does() {
    let camera = |text: &str| Config::parse(text).unwrap().cameras.remove(0);
    let yard = camera(YARD);
    assert!(yard.has_same_pipeline(&camera(&format!(
        "{YARD}name = \"Yard\"\nstanding = [{{ question = \"q\" }}]\n"
    ))));
    assert!(!yard.has_same_pipeline(&camera(&YARD.replace("rtsp://yard", "rtsp://other"))));
    assert!(!yard.has_same_pipeline(&camera(&format!("{YARD}model = \"everyday\"\n"))));
}
