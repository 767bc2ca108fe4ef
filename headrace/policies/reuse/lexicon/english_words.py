"""English words that mean the same thing.

A class is one concept, `name = word, word`; `;` or the line's end closes it. The name is one of its words. Two words
share a class only if each can replace the other in a request and the answer stays right. A word of several meanings is
in none, unless its class has the only meaning that requests use. Classes are small on purpose: a missing pair costs a
hit, a wrong one serves a wrong answer.
"""

#: Things that callers do or have done: the doer is always the caller or the system. So the place of such a word says
#: nothing of who does what to whom: "reset the password", "a password reset".
ACTIONS = """
turn-on = switch on, activate, enable, activation, power on
turn-off = switch off, deactivate, disable, deactivation, shut off, power off
turn-up = turn up, crank up; turn-down = turn down
install = installation, set up, setup; uninstall = uninstallation, deinstall
reset = resetting; delete = remove, erase, deletion, removal, get rid of, clear, get out, eliminate
cancel = cancellation, cancelation, call off, terminate, termination; pause = suspend
change = alter, modify, edit, modification, alteration, adjust, adjustment, update
upgrade; exit = quit; create = make, build, produce, creation, generate; write = compose, draft
find = locate, extract, identify, look for, search for, seek, track down
fix = repair, mend, solve, resolve, troubleshoot, sort out, remedy, deal with, handle, resolution, solution, correct,
correction, cope with
buy = purchase; clean = wash; cook = prepare; boil; bake; fry; roast; grill; freeze; thaw = defrost; peel; chop
download; upload; translate = translation; summarize = summarise, summary, summarization, sum up, recap, condense
explain = explanation, describe, description, elaborate, clarify, define, definition, clarification
calculate = compute, calculation, work out, computation, determine, figure out
contact = get in touch with, reach, reach out to, get hold of, get in contact with, get through to
return = send back, give back; track = trace, keep track of; monitor = keep an eye on
improve = enhance, improvement, boost, get better at; check = verify, verification, test; compare = comparison, contrast
learn = study; connect = connection, link, hook up, pair; disconnect = unlink
log-in = log in, login, sign in, log into, sign into, log on, log on to, sign on, log in to, sign in to
log-out = log out, logout, sign out, log off, sign off
sign-up = sign up, register, registration, create an account, open an account, enroll, enrol, make an account
unsubscribe = opt out; subscribe; rename = change the name of; restart = reboot; recover = restore, retrieve,
recovery, regain
back-up = back up, backup, make a backup; convert = conversion, transform; book = reserve, reservation, schedule
print; sort; reverse = flip; save = store; avoid = prevent, prevention, keep from
take-screenshot = take a screenshot, capture the screen, take a screen shot, screenshot, make a screenshot,
grab the screen
protect = protection, safeguard; secure; share; apply; replace = swap out, replacement, substitute
plant; remember = memorize, memorise; mute = silence; unmute; block; unblock; parse; merge = combine
concatenate = concatenation; iterate = loop, go through; debug; encrypt = encryption; decrypt = decryption
lose-weight = lose weight, weight loss, shed weight, slim down; gain-weight = gain weight, put on weight, weight gain
quit-smoking = quit smoking, stop smoking, give up smoking
fall-asleep = fall asleep, get to sleep
get-refund = get a refund, get my money back, request a refund, refund, receive a refund, money back, ask for a refund
unlock; lock; tie; measure = measurement; count; import; export; increase = raise, increment; decrease = reduce,
lower,
decrement, reduction, cut down on
open; close; insert; attach; archive; copy = duplicate; paste; rotate; resize = change the size of; crop; compress
submit = hand in; reply = respond; negotiate; organize = organise; prepare-for = get ready for; train = coach
treat = treatment; cure; view = see, look at, take a look at; pick-up = pick up, collect; assemble = put together
hire = recruit; send = mail; greet; brew; whiten; renew = renewal; invite = invitation
rewrite = rephrase, paraphrase, reword; proofread; classify = categorize, categorise, classification
close-account = close my account, close an account; redeem; implement = implementation; deploy = deployment
configure; visit; recognize = recognise, spot, detect; unpack
repeat; vacuum; dye; shave; stretch; swim; sew; knit; fold; pack; hide; sharpen; iron; descale
"""

CLASSES = """
start = begin, commence, kick off, get started with, get started; stop = halt, cease; finish = complete,
be done with; get = obtain, receive, acquire
use = utilize, utilise, usage, employ, make use of; work = function, operate; show = display
happen = occur, take place, come about; cause = trigger, lead to, bring about, result in
need = require, required, necessary, requirement; help = assist, assistance, aid; allow = permit
choose = select, pick, opt for; keep = retain; live = reside, dwell; speak = spoken
invent = invention, inventor; discover = discovery, discoverer; found = founder, establish; direct = director
paint = painter; design = designer
die = death, pass away; bear = born, birth, be born; marry = wed, get married to; own = possess
consist = composed, made up, consist of, made of, made out of; mean = meaning, signify, stand for, denote
name = call, named, known as; spell = spelling; pronounce = pronunciation
price = cost, pricing; size = dimension; height = tall; length = long; width = wide; depth = deep; weight = weigh
temperature = temp; amount = quantity; author = writer
population = number of inhabitants, inhabitant, number of residents, number of people living, people live, resident
capital = capital city; password = passcode; email = e-mail, email address, mail address, e-mail address
phone = mobile phone, cell phone, cellphone, smartphone, telephone; computer = pc, desktop computer
laptop = notebook computer; picture = image, photo, photograph, pic; movie = film, motion picture
car = automobile; bike = bicycle; plane = airplane, aeroplane, aircraft; doctor = physician; lawyer = attorney
child = kid; father = dad, daddy; mother = mum, mom, mommy; grandmother = grandma; grandfather = grandpa
baby = infant, newborn; job = position, occupation; boss = supervisor; colleague = coworker, co-worker
company = firm, business, corporation, enterprise; customer = client; employee = staff member
customer-service = customer service, customer support, support team, support staff, customer care, help desk
house = home; holiday = vacation; trash = garbage, rubbish; couch = sofa; trousers = pants; gasoline = petrol
stomach = belly, tummy; disease = illness, sickness; medicine = medication; fridge = refrigerator; meal = dish
restaurant = place to eat; teacher = instructor; exam = examination; passage = text; message = msg
advantage = benefit, upside, pro, perk, plus point; disadvantage = drawback, downside, con
difference = differ, distinction, different, differentiate, distinguish, distinguish between
similarity = in common, similar; example = instance; idea = suggestion, proposal, tip, recommendation, advice,
recommend, suggest; problem = issue, trouble, difficulty; error = error message
effect = impact, consequence, influence, affect; goal = aim, purpose, objective; result = outcome
string = str; folder = directory; settings = setting, preferences, preference; account = user account
subscription = membership; package = parcel, shipment; delivery = shipping, deliver, ship; address = street address
app = application; website = site, web site
wi-fi = wifi, wireless network, wireless; dark-mode = dark mode, dark theme, night mode
two-factor = two factor authentication, two step verification, two factor auth, tfa
notification = alert; country = nation; world = globe; road = street; rule = regulation; law = legislation
usa = united states, united states of america, the us, america; uk = united kingdom
eu = european union; un = united nations; new-york = new york city, nyc; netherlands = holland
ww2 = second world war, world war ii, wwii; ww1 = first world war, world war i, wwi
ai = artificial intelligence; machine-learning = ml
big = large, huge, enormous; biggest = largest; small = little, tiny; smallest = littlest
quick = fast, rapid, quickly, rapidly, speedy; quickest = fastest; slow = slowly
easy = simple, easily, simply, straightforward, easy to understand; easiest = simplest
hard = difficult, challenging, tough; important = crucial, essential, significant, vital, matter, importance
good = great, decent; best = ideal, optimal; bad = harmful, unhealthy, bad for, harmful to, bad to, harmful for
healthy = good for you
beautiful = pretty, attractive, lovely; cheap = inexpensive, affordable, low-cost; expensive = costly, pricey
famous = well known, well-known, renowned, celebrated; sick = ill, unwell; happy = glad; sad = sorrowful
angry = furious
tired = exhausted, fatigued; scared = afraid, frightened; strange = weird
slightly = a little, a bit; several = a few, a couple of; free = free of charge, at no cost, for free,
without charge, gratis; smart = intelligent, clever; rich = wealthy
dangerous = hazardous, risky; legal = lawful, legally; main = primary, principal, major
common = widespread, typical, usual; short = brief, concise, briefly; formal = official; enough = sufficient
same = identical; often = frequently; immediately = right away, at once, straight away, instantly
only = solely, exclusively; all = every, each, entire, whole; many = lot of, lots of, plenty of, numerous
more = additional, further, extra; because = due to, owing to; bullet = bullet point; poem = poetry; story = tale
vegetable = veggie; breakfast = morning meal; dinner = evening meal, supper
soil = dirt; forest = woods
train-station = train station, railway station; subway = metro, underground; cab = taxi
headache = head pain; tv = television, telly; ad = advertisement, advert, commercial
salary = paycheck; invoice = billing statement; discount = price reduction
deadline = due date; feedback = comments; strategy = game plan; skill = ability
mistake = blunder; chance = likelihood, probability; question = query; answer = response
slang = jargon; rude = impolite; polite = courteous; brave = courageous; quiet = silent; noisy = loud
earth = planet earth; moon = lunar; sun = solar; heart = cardiac; nyse = new york stock exchange
gdp = gross domestic product; ceo = chief executive officer, chief executive; cpu = processor; ram = memory
url = web address; ui = user interface; db = database; repo = repository; config = configuration
bug = defect; regex = regular expression; dictionary = dict; integer = int; boolean = bool
bathroom = restroom, toilet; lose = misplace, missing; forget = forgot
arrive = get there; leave = depart, departure; wait = hang on; buyer = purchaser; seller = vendor
talk = speak to, speak with, talk to, talk with, chat with; human = real person, human being
beginner = novice, newbie; near = close to, nearby
origin = come from, provenance; bright = shiny; dark = dim; sweet = sugary; tasty = delicious, yummy
broken = damaged, defective, faulty; delay = hold up; hurry = rush; guess = estimate; teach = teaching, educate
contain = include, comprise; carry = transport; throw-away = discard, throw out; earn = make money
spend = expenditure; invest = put money; donate = give to charity; fitness = being fit
exercise = workout, work out at; walk = stroll; sleep = slumber; pain = ache, soreness
vaccination = vaccine, jab; pregnant = expecting a baby; electricity = electric power
universe = cosmos; animal = creature; flower = blossom; leaf = leaves; garden = yard
singer = vocalist; battle = fight; army = military; government = administration; vote = voting; tax = taxation
money = cash, funds; rent = rental; hotel = accommodation, place to stay; trip = journey
tourist = traveler, traveller; suitcase = luggage, baggage; parking = park; code = source code
headphone = earphone, earbud; video = clip; spreadsheet = excel sheet; presentation = slide deck
topic = subject; friendly = kind-hearted
funny = humorous, amusing; serious = grave; interesting = fascinating; boring = dull; popular = well-liked
modern = contemporary; ancient = very old; strong = powerful; weak = feeble
"""
