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
        ("[wall]\nname = \"\"\n", 2, 8, "1 to 100"),
        ("[wall]\nhost = \"a\\nb\"\n", 2, 8, "on one line"),
        ("[wall]\nlisten = \"127.0.0.1:99999\"\n", 2, 10, "127.0.0.1:8460"),
        ("[wall]\nlisten = \"localhost:8460\"\n", 2, 10, "127.0.0.1:8460"),
        ("[wall]\nname = \"a\"\nname = \"b\"\n", 3, 1, "duplicate"),
        ("[access]\ntokens = [\"0123456789 abcdef\"]\n", 2, 11, "letters, digits"),
        ("[access]\ntokens = [\"0123456789abcdéf\"]\n", 2, 11, "letters, digits"),
        ("[access]\nhosts = [\"a\", \"http://wall.example\"]\n", 2, 15, "a name alone"),
        ("[access]\nquestions_per_minute = 0\n", 2, 24, "above 0"),
        ("[access]\nrequests_per_minute = -1\n", 2, 23, "invalid value"),
        ("[history]\nkeep_days = nan\n", 2, 13, "above 0"),
        ("[history]\nkeep_days = -1\n", 2, 13, "above 0"),
        ("[history]\nmax_bytes = -1\n", 2, 13, "invalid value"),
        ("[history]\npicture_every = inf\n", 2, 17, "from 0.1"),
        ("[cameras]\nid = 1\n", 1, 2, "expected one of"),
        ("camera = 3\n", 1, 10, "expected a sequence"),
        ("a = [[[[[\n", 1, 10, "unclosed"),
        (&format!("{YARD}name = \"Yard\\u0007\"\n"), 4, 8, "on one line"),
        (&format!("{YARD}stall_after = 0\n"), 4, 15, "from 1"),
        (&format!("{YARD}autosave = nan\n"), 4, 12, "from 1"),
        (&format!("{YARD}pipeline = \"videotestsrc\"\n"), 4, 12, "not both"),
        (&format!("{YARD}loop = \"yes\"\n"), 4, 8, "expected a boolean"),
        (
            &format!("{YARD}[[camera.standing]]\nquestion = \"is it?\"\nevery = 0\n"),
            4,
            1,
            "from 0.1",
        ),
        (&format!("{YARD}[[camera.standing]]\nquestion = \" \"\n"), 4, 1, "a question"),
        (
            &format!("{YARD}[[camera.standing]]\nquestion = \"q\"\nchoices = [\"a\", \"A \"]\n"),
            4,
            1,
            "different",
        ),
        (&format!("{YARD}[[camera.standing]]\nquestion = \"q\"\nfor = 3\n"), 4, 1, "without when"),
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

#[test]
fn a_file_that_is_no_configuration_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wall.toml");
    let said = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        Config::read(&file).unwrap_err().to_string()
    };
    assert!(said(b"[wall]\nname = \"\xe9t\xe9\"\n").contains("wall.toml:2:9: this is no UTF-8"));
    assert!(said(&vec![b'#'; 5 << 20]).contains("longer than 4 MiB"));
    assert!(said(b"\0\0\0\0").contains("wall.toml:1:"));
    assert!(Config::read(folder.path()).unwrap_err().to_string().contains("directory"));
    // Nothing is a wall without cameras.
    std::fs::write(&file, "").unwrap();
    assert!(Config::read(&file).unwrap().cameras.is_empty());
    // Any sign but those of control is one of a name.
    let name = "<b>\"Hof\"</b> 📷 & 'Tür'";
    let text = format!("{YARD}name = '\''\n");
    let text = text.replace("'\''", &format!("{name:?}"));
    assert_eq!(Config::parse(&text).unwrap().cameras[0].name.as_deref(), Some(name));
}
