"""The public dumps that `sidmill fetch` knows: where their files lie, and the SHA-256 that pins each.

A pin is what somebody computed from the bytes that the URL served and wrote down where it can be read;
the comment above it says where. A file whose SHA-256 nobody was found to have written down has None:
`fetch` says so, and remembers the first download's. Bytes are for show; the SHA-256 is what counts.

Plain http stands only beside a pin, as a second way to the same bytes: the certificate of
files.grouplens.org is reported to have run out in August 2026. Downloading is in fetch.py.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.filesize import decimal

from sid_pipelines.sources import SOURCES
from sid_schemas import RecipeError


@dataclass(frozen=True)
class DumpFile:
    """One file of a dump. urls: the same bytes, in the order to try."""

    name: str
    urls: tuple[str, ...]
    sha256: str | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Dump:
    """A dump by name. kind: the [source] kind that reads it.

    get_it: how to get a dump that has no public URL. reads: the file that [source] path names; without
    it, the only file, or the folder.
    """

    name: str
    kind: str
    licence: str
    files: tuple[DumpFile, ...] = ()
    get_it: str = ""
    reads: str = ""

    @property
    def bytes(self) -> int | None:
        """Give the size of all files, or None where one is not known."""
        sizes = [file.bytes for file in self.files]
        return sum(size for size in sizes if size) if sizes and all(sizes) else None

    @property
    def pinned(self) -> str:
        """Say whether the SHA-256 of every file is known: yes, partly or no."""
        known = [file.sha256 is not None for file in self.files]
        return "yes" if known and all(known) else "partly" if any(known) else "no"


GROUPLENS = "research use, not to be passed on; cite GroupLens"
AMAZON = "research use; cite the McAuley lab"
SNAP = "snap.stanford.edu/data"
SNAP_AMAZON = f"{SNAP}/amazon/productGraph/categoryFiles"
MCAULEY = "https://mcauleylab.ucsd.edu/public_datasets"
TWEETINGS = "https://raw.githubusercontent.com/sidooms/MovieTweetings"
MIND = (
    "https://huggingface.co/datasets/Recommenders/MIND/resolve/main",
    "https://recodatasets.z20.web.core.windows.net/newsrec",
)

# file name: SHA-256, bytes. All but two from tensorflow/datasets,
# tensorflow_datasets/url_checksums/movielens.txt, and the same in ISG-Siegen/OmniRec,
# src/omnirec/data_loaders/movielens_*.py. ml-10m: OmniRec, and repositories that give GroupLens' own MD5
# beside it. ml-32m: the LFS pointer suryaaxc/Prediction-Model ml-32m.zip and two data manifests.
# ml-latest-small is the release of September 2018, which GroupLens may replace.
MOVIELENS = {
    "ml-100k": ("50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229", 4_924_029),
    "ml-1m": ("a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20", 5_917_549),
    "ml-10m": ("813c411ccb6122564edfe752e7f80c4dcc5aa25fa94c93622f6877a7ba252862", 65_566_137),
    "ml-20m": ("96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3", 198_702_078),
    "ml-25m": ("8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa", 261_978_986),
    "ml-32m": ("e4a68655d7386b8f95f2f2424b2ff975dfdd15ffd59e0d864a14dca43e99d6ee", 238_950_008),
    "ml-latest-small": ("696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436", 978_202),
}

# Computed from the copies in shared/data/movietweetings, whose length and last lines are those of
# sidooms/MovieTweetings at these commits. `latest` moves, so it has no pin.
TWEETINGS_10K_50K = "a645287b5856975583467dac6432fb65f5386427"
TWEETINGS_100K = "4d8280a3f1ea83e3e23f13d1710d19f43564274f"
SNAPSHOTS = {
    "10K": (
        TWEETINGS_10K_50K,
        ("ratings.dat", "bf313a3b00f2d58ab6cbceb7f1a5f9b6fe46ae4453856773267b37a3701b105b", 288_084),
        ("movies.dat", "48769961349ec2aa6eaab8a7ade0e282a768475b2528cbe045266632cc05f981", 162_905),
    ),
    "50K": (
        TWEETINGS_10K_50K,
        ("ratings.dat", "efa8e2f6535088630acf4ddb7a674fc13b952aaaac658df4acf73cb66f16c73a", 1_453_662),
        ("movies.dat", "a37ce5e680f17cd0ca9e99c6b32aed70912b4f8cd2d64a5b3eba67ec1de026b6", 390_291),
    ),
    "100K": (
        TWEETINGS_100K,
        ("ratings.dat", "c0dd868c2632d10002ebc928ddc5345f33adeaa59eca52c2941c26a2c5e36fd6", 2_945_101),
        ("movies.dat", "e63fb84bc734e3c574f135634a40d3cbafab22b8f94f5fc0b80f80d1d2076efc", 542_192),
    ),
}

# ISG-Siegen/OmniRec, src/omnirec/data_loaders/amazon2014.py, as are the categories.
AMAZON_2014_RATINGS = {
    "Amazon_Instant_Video": "249e1061d30db8c1230e4f3edd0523be12c37e6a8e6b9872a312cf6c326f157b",
    "Apps_for_Android": "ed8919d499a20949a60ea10c40c25d820783da7bead896f32213f98b1887d987",
    "Automotive": "d77d59c094d86b7c987edcbc8d99ae78c9061e6f89ba819e1a77a1951fe977cc",
    "Baby": "a219f779b2694f660f1ee243f2af71d63c2c9828425e716569faace305e978d1",
    "Beauty": "17d5232b90444beecfe758ce1446e5300230491f3a88ac802992ca95fc4c150f",
    "Books": "87d923ddac2aacf40c1d0e0e056dbf4bf69c9c7d41852c6b434e781e759c0707",
    "CDs_and_Vinyl": "74b503152bc8f92f389a1f841ec00361f903772e5ebb2b664ce678c023dbbceb",
    "Cell_Phones_and_Accessories": "3c944712ec98360c959df256c9e3dde0d40caa4a888b6d2013050a7ab502afaa",
    "Clothing_Shoes_and_Jewelry": "7bf571cb99abaebf380d2a231986e6df7b622ebd49b308e2506f1c0aab54b29a",
    "Digital_Music": "fdf164882460ff26fa2521e01f6a9cf8005ad252ddce308dd03519064f02d80e",
    "Electronics": "a8e5b66b7f5371d1659ff88ae4acec91604125d6850f4f7e1c418120f2f9c16c",
    "Grocery_and_Gourmet_Food": "ae9b32803a9f0ddf98222e00871e7a8ff7709e792f2ba8048131ca214617e33c",
    "Health_and_Personal_Care": "387374ea5c9641a6e9dc09b93423414da4f8153b2975594e8b24c4bdd60b0462",
    "Home_and_Kitchen": "b0dae06e0b147abbf31878b4d16075a77b6ca8b8a5005b1a0b153b9d3ed310b2",
    "Kindle_Store": "616edbb9ee9b5e1f0212e0a75e226df3abb66548d833df3ea8a3c53942541200",
    "Movies_and_TV": "05fd3bbb387bca99f16b7a64a26abb736429da416e3cc0cc7423483e9ec4c265",
    "Musical_Instruments": "c541cf84fcc75d98cc595ebd856b0ebd351efce134671171c2de0d54b9573b9c",
    "Office_Products": "4cd5f3d454e744b7017ad5918e995ec2893b577c2109dbaa6d65b375092f9630",
    "Patio_Lawn_and_Garden": "8edc47c5fe860e97e34ab1f339835606e551b03bec13bc4f967693c1b04ad3c0",
    "Pet_Supplies": "5f963b813439471b4b2ce10fa7e9293da5995e4ec61f29d54489996a857b3442",
    "Sports_and_Outdoors": "a31a27e2f0cd85b50acd002378cf1a23a0b3f2659484defb3225a836118252d4",
    "Tools_and_Home_Improvement": "ea650a9d79e69a78f011843104ecac2a3ed8059bf7405e5a19f3a25511c9d2c6",
    "Toys_and_Games": "e28a342ca89a79036a9a840c0385a3a3342a08d3d3450ea3eaf3d544cd65d3af",
    "Video_Games": "f0ca171050c2e0f208d47f5267992476b21ab68a01439c21c8be1a4432982cfa",
}

# reviews_X_5.json.gz and meta_X.json.gz: the LFS pointers of Serendipity0429/Amazon-Dataset, where those
# of Cell_Phones and Clothing are corroborated by manifests elsewhere and the sizes of Electronics by
# downloads from SNAP. Beauty: the LFS pointers of namejun12000/SentimentLLM and three manifests.
AMAZON_2014_REVIEWS = {
    "Beauty": "e5925ec99023f1dc9c7d3dff7ef34cfeacd40d1b981b5525e1e4ba9c8abc18fe",
    "CDs_and_Vinyl": "3ed8d8008686160e1190c3666c67b779120d52d540764eae08aed8a4840dd760",
    "Cell_Phones_and_Accessories": "477f09973936c491c4c138436c477ba257d2e1fc556480c80fb75ebae10b4dab",
    "Clothing_Shoes_and_Jewelry": "b87037787e9d5374ce72995a29ac192cde1573513c31abfd4ca7781d802b1e22",
    "Electronics": "af3e7686df7ba4d1ea617197cc5e236c761367e86626c7d9246ac2fc79e36358",
    "Home_and_Kitchen": "f40029d99c90856eeeb8e63c9d58cd895ed58123f2c409a71f83553debc0fc0d",
    "Kindle_Store": "89bf4d43704f1fab336c9961b03786f97156b10a65d70fce2095c934a06557b8",
    "Sports_and_Outdoors": "8130a2206c3062db1b4b9d4353efc303b0ebd13f48372559fee26c47a1d7fe51",
    "Video_Games": "035690169fa2bba30cd0ae0c3e7dbf7bc58efde65fc1742a9ce85986e283b09c",
}

AMAZON_2014_META = {
    "Beauty": "c7977dc0e0ead14ac7df8c1c6de74da00e4bebfad87a0f0c5763d4c5bc9b53a0",
    "CDs_and_Vinyl": "81f7c941bd1fcce57125a277b4974573436fff68be705c47968edb7a6f3be4a2",
    "Cell_Phones_and_Accessories": "71dd91522ece7d4f18184b15f3110d4c77d909c5475745b6019a91497393bb39",
    "Clothing_Shoes_and_Jewelry": "5c3eb997cae891aeb646acaa05550b927cb205e5a3ead9d771d3f529110009c0",
    "Electronics": "4d01fff21369dabed5a893861cd0f72359a77971c69181d680a44faa55d91ac8",
    "Home_and_Kitchen": "49f303659700943526c39ab3aaa7e9efdd591e0edd69da0ad273f36976d4e684",
    "Kindle_Store": "53ae0ea244fc2457736239e018bc351f7230cba4e3e754d56f46d45a1f548acd",
    "Sports_and_Outdoors": "677108a0fe0f47cce08885a348879a5a89dd69e75fbc5d66410ae436750df086",
    "Video_Games": "b7bf4c724632874b931056e48957775822c6f0c9092f5bbf2d449694bec36180",
}

AMAZON_2014_BYTES = {
    "meta_Beauty.json.gz": 99_156_148,
    "meta_CDs_and_Vinyl.json.gz": 146_331_112,
    "meta_Cell_Phones_and_Accessories.json.gz": 93_960_947,
    "meta_Clothing_Shoes_and_Jewelry.json.gz": 280_989_093,
    "meta_Electronics.json.gz": 186_594_679,
    "meta_Home_and_Kitchen.json.gz": 152_367_034,
    "meta_Kindle_Store.json.gz": 166_661_277,
    "meta_Sports_and_Outdoors.json.gz": 183_143_051,
    "meta_Video_Games.json.gz": 23_557_720,
    "reviews_Beauty_5.json.gz": 44_819_276,
    "reviews_CDs_and_Vinyl_5.json.gz": 490_831_332,
    "reviews_Cell_Phones_and_Accessories_5.json.gz": 45_409_631,
    "reviews_Clothing_Shoes_and_Jewelry_5.json.gz": 47_285_200,
    "reviews_Electronics_5.json.gz": 495_854_086,
    "reviews_Home_and_Kitchen_5.json.gz": 138_126_598,
    "reviews_Kindle_Store_5.json.gz": 272_179_168,
    "reviews_Sports_and_Outdoors_5.json.gz": 68_275_834,
    "reviews_Video_Games_5.json.gz": 113_104_579,
}

# ISG-Siegen/OmniRec, src/omnirec/data_loaders/amazon2018.py, as are the categories. The metadata has no
# pins: two versions of the same names (metaFiles, metaFiles2) are about.
AMAZON_2018_RATINGS = {
    "AMAZON_FASHION": "c72e84207601cd00840a91b9b4433c60b8be800a27aa86991f5cb57f29b99825",
    "All_Beauty": "b3d9260771f9fe489a61180b9ff407e15e10f481a287848f69bc4709b669246f",
    "Appliances": "35af90b093508f4a811d259b71b94d45b2f67b0daf3d702203d29ff6b16b1e28",
    "Arts_Crafts_and_Sewing": "ab42ec44840c130b8bcb1993bad37021b5ff98f3aae55a120c2a0d0624be3be5",
    "Automotive": "3cb4182e6623f1ac4511cf02a46c5ba11b761fa6d7feead7922199603f9d35df",
    "Books": "2ff13d9763d38118851d8f8a4ab530f958e08ad48aa764c2d9bbe16ec227a3b8",
    "CDs_and_Vinyl": "daedcfb79310479728f11cc1e66d49ec6dccdec124222391bf6f4f69ca5092db",
    "Cell_Phones_and_Accessories": "c05835e7a7f7a1b0bab4fe4f2dbabecb102fde22de579758d10d36973d8b6a14",
    "Clothing_Shoes_and_Jewelry": "8b78d8a965e2351468deeebe99edb6118561711be4d5b6294e24e25f910c4d3d",
    "Digital_Music": "a73f1504ed58fdc3533a6817b4c89fc4f722eb46dc18f94a4566a4b171439c9c",
    "Electronics": "1ce756643c0abed1b0d8a0738e67fc2510f3086d2bd52567942e18582dd01791",
    "Gift_Cards": "e360486b46b7eef5f2ed3ecc0a486f15097b7600fbee4079632418496802704a",
    "Grocery_and_Gourmet_Food": "9652d130382a3f1fcbfffffcaf3b8474e2649be034fbea8b0281b78424b65d40",
    "Home_and_Kitchen": "618e6c4493bcdd147a2bf3015bc0835dfedbc03570fba7d89335d9cd360069eb",
    "Industrial_and_Scientific": "29e194947309c1a0e81f0f9646fd6f63959949dbd807ea327e07074f35376a30",
    "Kindle_Store": "f2fac32f72f51857f164c2c1671db141f06b2649608ebf1af2efba02a2fb219b",
    "Luxury_Beauty": "5e1ab08a0147412d6a15ab4b8259df7fbc1fe09c747ba5c46486081ee4d68d24",
    "Magazine_Subscriptions": "40287d71ee0c49030ee222888fb21a95941c2c31344e15bdd2e58e0f63831c2d",
    "Movies_and_TV": "c7a6ca7769a34fd0d335e1cd25e359c18a8fcd474515f8b62986297e35b5fc4f",
    "Musical_Instruments": "8933b17434e4984bcce8cf4ec43d847e0af6aa6d46add28bbb37b80e06da1b06",
    "Office_Products": "2e24f3df092efc71fa4dea41162c7c1ab2d46bc53c4cace63794a3a66dc6d82f",
    "Patio_Lawn_and_Garden": "103438afc6ddb6a9416b94804bf86251b7d3b15bdf6cc50e90d6787008f08e31",
    "Pet_Supplies": "dac12cc077131bdf1c951cc0cc2016d6381e6b52eb65a3cb98456ce82a3c6bd9",
    "Prime_Pantry": "ed55b1f239c4ec3402fdd15a603a4b84210177678c36c01db59487a8fddf685c",
    "Software": "86d2ec7712b4c979bf7e7e984d39989b610c9f0e4ba4fc02c6aac7dcd9a15583",
    "Sports_and_Outdoors": "da8d746f1602d5ff01d4056c8f55b228996a30d40069b658d71388b0bf3df5d6",
    "Tools_and_Home_Improvement": "1406d988afa38c62aeba1e6b33dada18a570fa6d8dd59cbc6e5229f8ecae0db0",
    "Toys_and_Games": "cfdf96d55b3d923c913f3b139e7fabdc20360989db38527ef5947982aa246d45",
    "Video_Games": "c3fec1cce4ee67f0d51f8b53a7e294d8bbe6f75ca1d8732256e900b3c46606d8",
}

# X_5.json.gz: both are also in shared/data/amazon2018. All_Beauty: the LFS pointer of
# Lexie-pq/STAR-Rec-GPT2. Gift_Cards: the file itself in ncloud50/giftcard and
# Alex-Shen1121/AmazonSearchEngine.
AMAZON_2018_REVIEWS = {
    "All_Beauty": "8e49737fefaec9290187c69bf92889452df8be0ab5e36c9476520d6639683279",
    "Gift_Cards": "41e1f0e50d3c1c9d7d949fb6315944c8bde51ea6b7429a29fdd0d02cbc07ef25",
}

# benchmark/0core/rating_only/X.csv.gz: ISG-Siegen/OmniRec, src/omnirec/data_loaders/amazon2023.py, as
# are the categories.
AMAZON_2023_RATINGS = {
    "All_Beauty": "54b894e68ad965aa73cdb80d8695c1ed37679c46f38b6f97b21ab0fb585aab24",
    "Amazon_Fashion": "7d08f3ad3ec331eb95cabf5a85c8e65f82f958429a17131e6d391f54532c0310",
    "Appliances": "0096701a2521a5fc71c5cfca11e953b0eb48a94a1b6ee4be65cb680c1fd56976",
    "Arts_Crafts_and_Sewing": "05ca786b3f99269ba659d71891b55d23e37bd74ab6cec0b53214ccb656308bb3",
    "Automotive": "9dda260d1d2cb91d0f967d0b4bfa0a09fda2904432023234569e45a6a30c48d3",
    "Baby_Products": "e2a8d0498afed767ee2615db7fac549559d82490b1a73c7241b84b5e9e8c279e",
    "Beauty_and_Personal_Care": "dd89a914e8c71d811c49a7e8fbdfc251c08bffb461b9544275e94018cb17f741",
    "Books": "752e144c1d3804619711a6b21bd68a5505825064723bfcd5008ac26067abe04b",
    "CDs_and_Vinyl": "1bade4e428efcffb549b6b7cb1f62a8cde9644e19a981a210b11a4c9c1561e75",
    "Cell_Phones_and_Accessories": "1f6df616b0ae463c039f68c7082daec52d2c713b33adb57b85db3430a8e2373a",
    "Clothing_Shoes_and_Jewelry": "ee93396e811c03d077290b78e323228c58814a034e3e98d0339e5314d7f7a9a7",
    "Digital_Music": "dbd5ddd5398d0eb9cfe224c9cc60470ccfd9c55e76fc82653dd3f44f6796c2a1",
    "Electronics": "2ac3508c5d0ee55ed9fdc833629f751e0f0120b9a8cb30867c8c14b87911c170",
    "Gift_Cards": "abfd9636afc5cdc1f46082ac1f9661b7c617cbd9c8a75652ad6a567173a14807",
    "Grocery_and_Gourmet_Food": "4cb2da7f57dfe210eecf348ee16514d11460022f0ce4ed141aa66e3eb5410135",
    "Handmade_Products": "b024e3e4cb1b1f4c9cfbb44a506ea42f8b8430ee8caf0dfa69fef52b69ece408",
    "Health_and_Household": "0a8982f9915bd18ea61caf4341db95c3fe1478abee907e6a61fec838374d2dca",
    "Health_and_Personal_Care": "5516d99b9747abff99003a7e1518833c2d64b10196201b6e6e90673bee15964d",
    "Home_and_Kitchen": "9be4e2dc8b3dc513c02521644b2ae55f722b2941767e539dcfe518f6bdd4f70b",
    "Industrial_and_Scientific": "97aea590deb258f634caea04b63f038dceb5990bbc92cac87ce2a985f0f91595",
    "Kindle_Store": "ff546c451edfb403d10099912b816b11600e689a599621167d4847331fdc0a0d",
    "Magazine_Subscriptions": "4892619d97f810331c2a278176b2be616de10403be59e48efbe65c5c1e7904d2",
    "Movies_and_TV": "aa927ae5a4fc5262bfa6152ce522349f828760035242fd7e02b1dc139e867156",
    "Musical_Instruments": "042648a89f479aaa2af4664dcb49966dbaf07bd5ebab6957799f5fb4c5efa2e0",
    "Office_Products": "f91b5cfb6ed5ff52afe3e2f3ecc7918cbd8745b3241a8fc61011c3a41f23920b",
    "Patio_Lawn_and_Garden": "a1ea496e71e488c6b12823d479ed6375384b82f6794b38e66d12a5dcd20c392d",
    "Pet_Supplies": "cfc55406a1fbb507e4adfa18472e60a5de52fab3dd76f97fea25d30da1288003",
    "Software": "11687bdbedc0bfd9bf86368465dcab40f2450d1ea8eabd3c830ba8b339edd9c0",
    "Sports_and_Outdoors": "110617511c7303ca34d157b7d62fd20a02e412c3639b4c6e307a951fadf0414c",
    "Subscription_Boxes": "fb867ee253db3987ab3ceaf371da506df794b08c98cf9a99e9718d9e4e818188",
    "Tools_and_Home_Improvement": "5845ac062a2c165d540badac13f00a8cb8cdaa30deb670a9b41db19d92c6bd1d",
    "Toys_and_Games": "170fc8a18797c6091cf1b07bb3d97c13c94bfa030cf76c430bb8cac0dfb47a9f",
    "Unknown": "864c1dfa8b215a9a09fe0d17c7abc15f2da97078bc9acc7911783f2447016e10",
    "Video_Games": "30692f9806e33a7b5d8b599b73d7ca33dbfefb0abdfc1578052a101f2e64b3cd",
}

# benchmark/5core/rating_only/X.csv.gz: the data notes of two repositories that name this URL.
AMAZON_2023_5CORE = {
    "Video_Games": "a2bde5f3b945960d161538c200dd87845e6ee471b46da96410dde61613c6901c",
}

# goodreads_interactions_X.json.gz: ISG-Siegen/OmniRec, src/omnirec/data_loaders/goodreads.py.
GOODREADS_INTERACTIONS = {
    "children": "d8ce59259e45262b3322bd87f5c2a13228cd8bb659332414a05660aed7cd7c71",
    "comics_graphic": "b55fbe66c2c802cefad5051808724d5074e342d6a4004309595a972702a62f4d",
    "fantasy_paranormal": "ec6a2444c13aa05b056988ac2671c5d643883c9aca0d8f9e46e413fc5773fa4b",
    "history_biography": "c08c7ebe477807556d4f92b75ba146916f2ae49e3ed269e3966fd9ca4ce517ca",
    "mystery_thriller_crime": "9c3c179ce5e5612cf72dc7aa2e570b49ab655b42a44cb8e9ddd5697393c43c4f",
    "poetry": "65fb9777f5e482695f0e4b71ef9884f6a7e5ab31c224dabc7ae0c2dcd60e49de",
    "romance": "3dde6e1dae8ebb7384f849e4378f5f294cbd6385abeac238aea2ce7e66e0faf0",
    "young_adult": "6d03182383f10e1eec36ac0a972533806518e2a082089867e3deb941ed77d6c4",
}


def _movielens() -> Iterator[Dump]:
    for name, (sha256, size) in MOVIELENS.items():
        address = f"files.grouplens.org/datasets/movielens/{name}.zip"
        urls = (f"https://{address}", f"http://{address}")
        yield Dump(name, "movielens", GROUPLENS, (DumpFile(f"{name}.zip", urls, sha256, size),))


def _movietweetings() -> Iterator[Dump]:
    latest = f"{TWEETINGS}/master/latest"
    files = tuple(DumpFile(name, (f"{latest}/{name}",)) for name in ("ratings.dat", "movies.dat"))
    yield Dump("movietweetings", "movietweetings", "MIT", files)
    for size, (commit, *known) in SNAPSHOTS.items():
        files = tuple(
            DumpFile(name, (f"{TWEETINGS}/{commit}/snapshots/{size}/{name}",), sha256, length)
            for name, sha256, length in known
        )
        yield Dump(f"movietweetings-{size.lower()}", "movietweetings", "MIT", files)


def _amazon_2014() -> Iterator[Dump]:
    for category in AMAZON_2014_RATINGS:
        meta = _snap_amazon(f"meta_{category}.json.gz", AMAZON_2014_META.get(category))
        reviews = _snap_amazon(f"reviews_{category}_5.json.gz", AMAZON_2014_REVIEWS.get(category))
        ratings = _snap_amazon(f"ratings_{category}.csv", AMAZON_2014_RATINGS[category])
        yield Dump(f"amazon-2014/{category}", "amazon-2014", AMAZON, (reviews, meta))
        yield Dump(f"amazon-2014-ratings/{category}", "amazon-2014", AMAZON, (ratings, meta))


def _snap_amazon(name: str, sha256: str | None) -> DumpFile:
    urls = (f"https://{SNAP_AMAZON}/{name}", f"{MCAULEY}/data/amazon/categoryFiles/{name}")
    plain = (f"http://{SNAP_AMAZON}/{name}",) if sha256 else ()
    return DumpFile(name, urls + plain, sha256, AMAZON_2014_BYTES.get(name))


def _amazon_2018() -> Iterator[Dump]:
    for category in AMAZON_2018_RATINGS:
        meta = _mcauley(f"data/amazon_v2/metaFiles2/meta_{category}.json.gz")
        folder = "data/amazon_v2/categoryFilesSmall"
        reviews = _mcauley(f"{folder}/{category}_5.json.gz", AMAZON_2018_REVIEWS.get(category))
        ratings = _mcauley(f"{folder}/{category}.csv", AMAZON_2018_RATINGS[category])
        yield Dump(f"amazon-2018/{category}", "amazon-2018", AMAZON, (reviews, meta))
        yield Dump(f"amazon-2018-ratings/{category}", "amazon-2018", AMAZON, (ratings, meta))


def _amazon_2023() -> Iterator[Dump]:
    """Give raw reviews, 5-core ratings and all ratings; a category too thin for a 5-core answers 404."""
    folder = "data/amazon_2023"
    for category in AMAZON_2023_RATINGS:
        meta = _mcauley(f"{folder}/raw/meta_categories/meta_{category}.jsonl.gz")
        reviews = _mcauley(f"{folder}/raw/review_categories/{category}.jsonl.gz")
        thick = f"{folder}/benchmark/5core/rating_only/{category}.csv.gz"
        rated = f"{folder}/benchmark/0core/rating_only/{category}.csv.gz"
        five_core = _mcauley(thick, AMAZON_2023_5CORE.get(category))
        ratings = _mcauley(rated, AMAZON_2023_RATINGS[category])
        yield Dump(f"amazon-2023/{category}", "amazon-2023", AMAZON, (reviews, meta))
        yield Dump(f"amazon-2023-5core/{category}", "amazon-2023", AMAZON, (five_core, meta))
        yield Dump(f"amazon-2023-ratings/{category}", "amazon-2023", AMAZON, (ratings, meta))


def _goodreads() -> Iterator[Dump]:
    licence = "academic use, not to be passed on; cite Wan and McAuley 2018"
    for genre, sha256 in GOODREADS_INTERACTIONS.items():
        folder = "gdrive/goodreads/byGenre"
        interactions = _mcauley(f"{folder}/goodreads_interactions_{genre}.json.gz", sha256)
        books = _mcauley(f"{folder}/goodreads_books_{genre}.json.gz")
        yield Dump(f"goodreads/{genre}", "goodreads", licence, (interactions, books))


def _mcauley(path: str, sha256: str | None = None) -> DumpFile:
    return DumpFile(path.rpartition("/")[2], (f"{MCAULEY}/{path}",), sha256)


def _others() -> Iterator[Dump]:
    # ISG-Siegen/OmniRec, gowalla.py; the same SHA-256 in four other repositories, the size in TrajDL.
    name = "loc-gowalla_totalCheckins.txt.gz"
    sha256 = "c1c3e19effba649b6c89aeab3c1f9459fad88cfdc2b460fc70fd54e295d83ea0"
    urls = (f"https://{SNAP}/{name}", f"http://{SNAP}/{name}")
    yield Dump(
        "gowalla", "gowalla", "none stated; cite Cho 2011", (DumpFile(name, urls, sha256, 105_470_044),)
    )
    # ISG-Siegen/OmniRec, hetrec_lastfm.py; the same in three other repositories.
    name = "hetrec2011-lastfm-2k.zip"
    sha256 = "6738f48195667ff03caaab4d32ca9a3133d8cc026b7c3cdaf6ce1010e913c59c"
    address = f"files.grouplens.org/datasets/hetrec2011/{name}"
    urls = (f"https://{address}", f"http://{address}")
    yield Dump("lastfm-2k", "lastfm-2k", "non-commercial use", (DumpFile(name, urls, sha256),))
    # ISG-Siegen/OmniRec, steam_reviews.py (at dc55572). The games have no pin.
    steam = ("https://cseweb.ucsd.edu/~wckang", f"{MCAULEY}/data/steam")
    sha256 = "40c6343deedf488689987749c5f8435233da48c163fbaa2a7766c215d584bc61"
    reviews, games = (
        tuple(f"{base}/{name}" for base in steam) for name in ("steam_reviews.json.gz", "steam_games.json.gz")
    )
    yield Dump(
        "steam",
        "steam",
        "none stated; cite Kang and McAuley 2018",
        (DumpFile("steam_reviews.json.gz", reviews, sha256), DumpFile("steam_games.json.gz", games)),
    )
    # Written down in four projects that took them from Recommenders/MIND, Microsoft's own mirror now
    # (mind201910small.blob.core.windows.net is closed); sizes from recommenders' tests.
    train = "6ef97a271580b98ccfc4301ada55cc639423cb0576a78b8dcfcf74a4dbcc3194"
    dev = "d6ce515dcaa6b6d47ddf0a326eebc8a31b84735ae410285c9882ca2a06eec669"
    files = tuple(
        DumpFile(name, tuple(f"{base}/{name}" for base in MIND), sha256, size)
        for name, sha256, size in (
            ("MINDsmall_train.zip", train, 52_994_575),
            ("MINDsmall_dev.zip", dev, 30_948_560),
        )
    )
    # Each zip is a dump of its own: both have a behaviors.tsv.
    licence = "Microsoft Research License: non-commercial research"
    yield Dump("mind-small", "mind", licence, files, reads="MINDsmall_train.zip")
    # Written down in several projects, in one of them with the size that the server gives elsewhere.
    name = "open_bandit_dataset.zip"
    sha256 = "e8ec18196582a5937381a1776382ca940689b90a18d2dcd1fb635be6df614d78"
    file = DumpFile(name, (f"https://research.zozo.com/data_release/{name}",), sha256, 412_931_917)
    yield Dump("open-bandit", "open-bandit", "CC BY 4.0, ZOZO Research", (file,))
    yield Dump(
        "retailrocket",
        "retailrocket",
        "CC BY-NC-SA 4.0",
        get_it="log in at https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset and download it",
    )
    yield Dump(
        "yelp",
        "yelp",
        "Yelp's terms: academic use",
        get_it="fill in the form at https://business.yelp.com/data/resources/open-dataset/",
    )
    yield Dump(
        "trivago",
        "trivago",
        "terms of the RecSys Challenge 2019",
        get_it="register at https://recsys.trivago.cloud/ and accept the terms",
    )


DUMPS: Mapping[str, Dump] = {
    dump.name: dump
    for dump in (
        *_movielens(),
        *_movietweetings(),
        *_others(),
        *_goodreads(),
        *_amazon_2014(),
        *_amazon_2018(),
        *_amazon_2023(),
    )
}


def dump_named(name: str) -> Dump:
    """Give a dump by its name, or raise RecipeError with its categories or the nearest known name."""
    if name in DUMPS:
        return DUMPS[name]
    parts = [known.partition("/")[2] for known in DUMPS if known.startswith(f"{name.rstrip('/')}/")]
    if parts:
        raise RecipeError(
            f"fetch {name}: expected one of its parts, as in {name.rstrip('/')}/{parts[0]}; there are: "
            + ", ".join(parts)
        )
    folded = {known.lower(): known for known in DUMPS}
    nearest = folded[difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0)[0]]
    raise RecipeError(
        f"fetch {name}: no such dump; the nearest known one is {nearest!r}. `sidmill fetch` lists them all"
    )


def menu(source: str | None = None) -> list[dict[str, Any]]:
    """List the dumps, or those of one name or family, for a program to read."""
    if source is not None and not any(_of(source, name) for name in DUMPS):
        dump_named(source)  # raises, with the nearest name
    return [
        {
            "name": dump.name,
            "kind": dump.kind,
            "readable": dump.kind in SOURCES,
            "bytes": dump.bytes,
            "licence": dump.licence,
            "pinned": dump.pinned,
            "get_it": dump.get_it or None,
            "files": [asdict(file) for file in dump.files],
        }
        for dump in DUMPS.values()
        if source is None or _of(source, dump.name)
    ]


def _of(source: str, name: str) -> bool:
    return name == source or name.startswith(f"{source.rstrip('/')}/")


def menu_table(source: str | None = None) -> tuple[list[str], list[list[str]]]:
    """Give the same as columns and rows for people; without a source, a family is one row."""
    rows: dict[str, list[str]] = {}
    for dump in menu(source):
        family, _, part = dump["name"].partition("/")
        kind = dump["kind"] if dump["readable"] else f"{dump['kind']} (not there yet)"
        if part and source is None:
            last = int(rows[family][2].split()[0]) if family in rows else 0
            rows[family] = [f"{family}/...", kind, f"{last + 1} parts", dump["licence"], "see --list"]
        else:
            size = decimal(dump["bytes"]) if dump["bytes"] else "" if dump["files"] else "no public URL"
            pinned = dump["pinned"] if dump["files"] else ""
            rows[dump["name"]] = [dump["name"], kind, size, dump["licence"], pinned]
    return ["name", "source kind", "size", "licence", "pinned"], list(rows.values())
